"""``curricula train``."""

from pathlib import Path
from typing import Any

import click

from curricula.cli.paths import PATH
from curricula.plugins import registry


@click.command()
@click.option("--config", metavar="NAME_OR_FILE", help="Start from a recipe or a config.toml.")
@click.option("--data", metavar="DATA", help="Data set.  [default: digits]")
@click.option("--data-root", metavar="DIR", help="Folder of its files.  [default: data]")
@click.option("--download", is_flag=True, help="Fetch missing data into --data-root.")
@click.option("--model", metavar="MODEL", help="Network, for example smallcnn.")
@click.option(
    "--perturb", metavar="EXPR", help="Curriculum, for example rot:30+pgd:8/255.  [default: clean]"
)
@click.option(
    "--schedule",
    multiple=True,
    metavar="[LABEL=]SCHEDULE",
    help="Strength over training, for all links or one; repeatable.  [default: linear]",
)
@click.option("--objective", metavar="OBJECTIVE", help="Training loss.  [default: at]")
@click.option("--epochs", type=int, help="Passes over the training images.")
@click.option("--batch-size", type=int, help="Images per update.")
@click.option("--optimizer", metavar="NAME", help="sgd or adamw.")
@click.option("--lr", type=float, help="Learning rate.")
@click.option("--momentum", type=float, help="Of sgd.  [default: 0.9]")
@click.option("--weight-decay", type=float)
@click.option("--lr-schedule", metavar="SCHEDULE", help="For example one-cycle or cosine.")
@click.option("--awp", type=float, help="Adversarial weight perturbation.  [default: 0, none]")
@click.option("--average", metavar="AVERAGE", help="Of weights: none, ema or swa. [default: none]")
@click.option("--shuffle/--no-shuffle", default=None, help="New order each epoch.  [default: yes]")
@click.option("--augmentation", metavar="EXPR", help="At full strength from the start: crop+flip.")
@click.option("--seed", type=int, help="Of every random draw.  [default: 0]")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ...  [default: auto]")
@click.option("--precision", metavar="NAME", help="auto, float32 or bf16.  [default: auto]")
@click.option("--compile", metavar="NAME", help="auto, on or off: torch.compile.  [default: auto]")
@click.option("--out", type=PATH, help="Run folder.  [default: runs/...]")
@click.option(
    "--baseline", is_flag=True, help="Train a baseline too, into OUT/baseline, and compare."
)
def command(
    config: str | None, download: bool, out: Path | None, baseline: bool, **flags: Any
) -> None:
    """Train a classifier under a curriculum of perturbations, then measure it.

    What you leave out is the data set's default; the run's config.toml states every value.

    Example: curricula train --perturb rot+pgd --schedule linear
    """
    from curricula.api import train
    from curricula.cli.progress import Terminal
    from curricula.cli.tables import show_accuracies
    from curricula.recipes import read_config
    from curricula.reporting.report import report
    from curricula.runtime.malloc import keep_freed_memory

    keep_freed_memory()
    values = read_config(config) if config is not None else {}
    values |= {name: value for name, value in flags.items() if value not in (None, ())}
    trained = train(out=out, download=download, baseline=baseline, callback=Terminal(), **values)
    columns = {"this run": trained.results}
    if trained.baseline is not None:
        columns["baseline"] = trained.baseline.results
    show_accuracies(columns)
    click.echo(f"run folder: {trained.run.path}")
    click.echo(f"report: {report(trained.run.path)}")
    further = registry.command_line("evaluate", trained.run.path, "--threat", "EXPR")
    click.echo(f"measure it further: {further}")
