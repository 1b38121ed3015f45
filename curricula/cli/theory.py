"""``curricula theory``."""

import json
from pathlib import Path

import click

from curricula.cli.paths import PATH


@click.command()
@click.option("--d", type=int, default=101, show_default=True, help="Features.")
@click.option(
    "--p", type=float, default=0.95, show_default=True, help="That the strong feature is right."
)
@click.option(
    "--c",
    "signals",
    type=float,
    multiple=True,
    help="Signal of all weak features; repeatable.  [default: 2 and 3]",
)
@click.option(
    "--rho",
    "ratios",
    type=float,
    multiple=True,
    help="Ratio of the weights, a row each; repeatable.  [default: of the reference table]",
)
@click.option("--eps", type=float, help="Radius of the adversary.  [default: 2 eta]")
@click.option(
    "--samples", type=int, default=1_000_000, show_default=True, help="Of the simulation."
)
@click.option("--train/--no-train", default=True, help="Train models too.  [default: train]")
@click.option("--seeds", type=int, default=3, show_default=True, help="Models of each kind.")
@click.option("--updates", type=int, default=600, show_default=True, help="Of each training.")
@click.option(
    "--learning-rate", type=float, default=0.01, show_default=True, help="Of each training."
)
@click.option(
    "-o",
    "--output",
    "--out",
    "folder",
    type=PATH,
    metavar="FOLDER",
    help="Write theory.json, frontier.png and frontier.svg there.",
)
@click.option(
    "--format",
    "shown",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
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
    learning_rate: float,
    folder: Path | None,
    shown: str,
) -> None:
    """Compute, simulate and draw a trade-off between shifts and l-inf attacks.

    In a setting of one strong feature and many weak ones the accuracies have closed forms. They are
    printed beside a simulation, and models are trained there: a linear one and a small MLP, on
    plain, shifted and attacked samples, with a curriculum and without.

    Example: curricula theory --c 2 --c 3 -o theory
    """
    from curricula.errors import UserError
    from curricula.reporting.figures import write_figure
    from curricula.reporting.theory import frontier_figure
    from curricula.runtime.files import make_folder, write_output
    from curricula.theory.setting import Setting
    from curricula.theory.study import MOST_SETTINGS, REFERENCE, check, study

    signals = signals or tuple(REFERENCE)
    if len(signals) > MOST_SETTINGS:
        raise UserError(f"c: give 1 to {MOST_SETTINGS} of them, not {len(signals)}")
    if len(set(signals)) < len(signals):
        raise UserError("c: each of them once")
    size = {} if eps is None else {"eps": eps}
    settings = [Setting(d=d, p=p, c=c, **size) for c in signals]
    if train and seeds == 0:
        raise UserError("seeds must be 1 or more, not 0: for no models write --no-train")
    for setting in settings:
        check(setting, ratios, samples, seeds, updates, learning_rate)
    if folder is not None:
        make_folder(folder)
    studies = [
        study(
            setting,
            ratios=ratios,
            samples=samples,
            seeds=seeds if train else 0,
            updates=updates,
            learning_rate=learning_rate,
            noted=lambda line: click.echo(line, err=True),
        )
        for setting in settings
    ]
    text = json.dumps([each.as_json() for each in studies], indent=2)
    if shown == "json":
        click.echo(text)
    else:
        from curricula.cli.tables import show_theory

        show_theory(studies)
    if folder is not None:
        write_output(folder / "theory.json", text.encode() + b"\n")
        figure = frontier_figure(studies)
        for name in ("frontier.png", "frontier.svg"):
            write_figure(figure, folder / name)
        click.echo(f"theory: {folder}", err=shown == "json")
