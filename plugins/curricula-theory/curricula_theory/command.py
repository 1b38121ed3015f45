"""``curricula theory``."""

import json
from pathlib import Path

import click

from curricula.cli.paths import PATH
from curricula.runtime.records import to_json


@click.command()
@click.option(
    "--d", type=int, default=101, show_default=True, help="Number of features, 3 to 10,001."
)
@click.option(
    "--p",
    type=float,
    default=0.95,
    show_default=True,
    help="Probability that the strong feature is correct, 0.5 to below 1.",
)
@click.option(
    "--c",
    "signals",
    type=float,
    multiple=True,
    help="Signal of all weak features together, above 0 to 10^6; repeatable.  [default: 2 and 3]",
)
@click.option(
    "--rho",
    "ratios",
    type=float,
    multiple=True,
    help="Ratio of the weights, above 0, one row each; up to 100 times.  [default: by c]",
)
@click.option(
    "--eps",
    type=float,
    help="L-inf radius of the adversary, from 0 to 10^9.  [default: twice the mean of a weak "
    "feature, 2 c / sqrt(d - 1)]",
)
@click.option(
    "--samples",
    type=int,
    default=1_000_000,
    show_default=True,
    help="Number of simulated samples, 1 to 100,000,000.",
)
@click.option(
    "--train/--no-train", default=True, help="Also train models in the setting.  [default: train]"
)
@click.option(
    "--seeds",
    type=int,
    default=3,
    show_default=True,
    help="Number of models of each kind, 1 to 100.",
)
@click.option(
    "--updates",
    type=int,
    default=600,
    show_default=True,
    help="Number of updates of each training, 1 to 1,000,000.",
)
@click.option(
    "--lr",
    type=float,
    default=0.01,
    show_default=True,
    help="Highest learning rate of each training, above 0 and at most 1.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="DIR",
    help="Folder for theory.json, frontier.png and frontier.svg.",
)
@click.option(
    "--format",
    "shown",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the results on standard output.",
)
def command(
    d: int,
    p: float,
    signals: tuple[float, ...],
    ratios: tuple[float, ...],
    eps: float | None,
    samples: int,
    train: bool,
    seeds: int,
    updates: int,
    lr: float,
    output: Path | None,
    shown: str,
) -> None:
    """Compute, simulate and draw a trade-off between shifts and l-inf attacks.

    In a setting of one strong feature and many weak ones the accuracies have closed forms. The
    command prints them beside a simulation, and trains a linear model and a small MLP in the
    setting: on plain, shifted and attacked samples, with a curriculum and without.

    Example: curricula theory --c 2 --c 3 -o theory
    """
    from curricula.errors import UserError
    from curricula.runtime.files import check_folder, make_folder, write_output

    if output is not None:
        check_folder(output, parents=False)

    from curricula.reporting.figures import write_figure
    from curricula_theory.figure import frontier_figure
    from curricula_theory.setting import Setting
    from curricula_theory.study import MAX_SETTINGS, REFERENCE_RATIOS, check, study
    from curricula_theory.tables import show_theory

    signals = signals or tuple(REFERENCE_RATIOS)
    if len(signals) > MAX_SETTINGS:
        raise UserError(f"--c must be given 1 to {MAX_SETTINGS} times, not {len(signals)}")
    if len(set(signals)) < len(signals):
        raise UserError("--c: the same value twice; give each value once")
    size = {} if eps is None else {"eps": eps}
    settings = [Setting(d=d, p=p, c=c, **size) for c in signals]
    if train and seeds == 0:
        raise UserError("seeds must be 1 or more, not 0; to train no models write --no-train")
    for setting in settings:
        check(setting, ratios, samples, seeds, updates, lr)
    if output is not None:
        make_folder(output)
    studies = [
        study(
            setting,
            ratios=ratios,
            samples=samples,
            seeds=seeds if train else 0,
            updates=updates,
            lr=lr,
            on_message=lambda line: click.echo(line, err=True),
        )
        for setting in settings
    ]
    text = json.dumps(to_json(studies), indent=2)
    if shown == "json":
        click.echo(text)
    else:
        show_theory(studies)
    if output is not None:
        write_output(output / "theory.json", text.encode() + b"\n")
        figure = frontier_figure(studies)
        for name in ("frontier.png", "frontier.svg"):
            write_figure(figure, output / name)
        click.echo(f"theory: {output}", err=shown == "json")
