"""``curricula train``."""

from pathlib import Path
from typing import Any

import click

from curricula.cli.options import combined, download_option, given, output_option, training_options
from curricula.plugins import registry


@click.command()
@click.option(
    "--config", metavar="NAME_OR_FILE", help="Recipe or config.toml to start from; flags win."
)
@combined(training_options(), download_option())
@output_option("Run folder to make.  [default: runs/DATA-MODEL-DATE-TIME]", metavar="DIR")
@click.option(
    "--baseline",
    is_flag=True,
    help="Also train without perturbations, into OUTPUT/baseline, and compare.",
)
def command(
    config: str | None, download: bool, output: Path | None, baseline: bool, **flags: Any
) -> None:
    """Train a classifier under a curriculum of perturbations, then evaluate it.

    The data set supplies the values that you leave out; the run's config.toml states all of them.

    Example: curricula train --perturb rot+pgd --schedule linear --baseline -o runs/first
    """
    from curricula.api import train
    from curricula.cli.progress import Terminal
    from curricula.cli.tables import show_accuracies
    from curricula.recipes import read_config
    from curricula.runtime.malloc import keep_freed_memory

    keep_freed_memory()
    values = read_config(config) if config is not None else {}
    values |= given(flags)
    trained = train(
        output=output, download=download, baseline=baseline, callback=Terminal(), **values
    )
    columns = {"this run": trained.results}
    if trained.baseline is not None:
        columns["baseline"] = trained.baseline.results
    show_accuracies(columns)

    from curricula.reporting.report import report  # imports matplotlib: only now is it needed

    click.echo(f"run folder: {trained.run.path}")
    click.echo(f"report: {report(trained.run.path)}")
    further = registry.command_line("evaluate", trained.run.path, "--threat", "EXPR")
    click.echo(f"measure it further: {further}")
