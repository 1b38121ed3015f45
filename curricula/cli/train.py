"""``curricula train``."""

from pathlib import Path
from typing import Any

import click

from curricula.cli.options import combined, download_option, given, output_option, training_options
from curricula.cli.paths import PATH
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.training.run import CONFIG, check_page


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
@click.option(
    "--resume",
    type=PATH,
    metavar="RUN",
    help="Continue an interrupted run, as it is configured, from its last checkpoint.",
)
@click.option(
    "--callback",
    "callbacks",
    multiple=True,
    metavar="NAME",
    help="Callback that follows the training; repeatable. --resume takes it again.",
)
@click.option(
    "--checkpoint-every",
    metavar="N|Nmin",
    help="Also save a checkpoint every N updates, or every N minutes.  "
    "[default: such that it takes under 1 % of the time]",
)
def command(
    config: str | None,
    download: bool,
    output: Path | None,
    baseline: bool,
    resume: Path | None,
    callbacks: tuple[str, ...],
    checkpoint_every: str | None,
    **flags: Any,
) -> None:
    """Train a classifier under a curriculum of perturbations, then evaluate it.

    The data set supplies the values that you leave out; the run's config.toml states all of them.

    Ctrl-C and SIGTERM end it after the current update, with everything saved; --resume continues.

    Example: curricula train --perturb rot+pgd --schedule linear --baseline -o runs/first
    """
    from curricula.api import training
    from curricula.cli.progress import Terminal
    from curricula.cli.tables import show_accuracies
    from curricula.recipes import read_config
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import from_first, joined

    keep_freed_memory()
    values = given(flags)
    if resume is not None:
        others = {"config": config, "output": output, "baseline": baseline or None}
        left_out = [name for name in given({**others, **values}) if name != "data_root"]
        if left_out:
            flag = left_out[0].replace("_", "-")
            raise UserError(
                f"--resume continues a run as it is configured: leave out --{flag}, or start a "
                f"new run with --config {resume / CONFIG}"
            )
    with joined() as place:
        folder = resume or output
        if folder is not None:
            from_first(lambda: check_page(folder))
        if resume is not None:
            trained = training.resume(
                resume,
                callbacks=[Terminal(), *callbacks],
                progress=False,
                data_root=values.get("data_root"),
                checkpoint_every=checkpoint_every,
            )
        else:
            trained = training.train(
                output=output,
                download=download,
                baseline=baseline,
                callbacks=[Terminal(), *callbacks],
                progress=False,
                checkpoint_every=checkpoint_every,
                **{**(read_config(config) if config is not None else {}), **values},
            )
    if not place.is_first:
        return
    columns = {"this run": trained.results}
    if trained.baseline is not None:
        columns["baseline"] = trained.baseline.results
    show_accuracies(columns)

    from curricula.reporting.report import report  # imports matplotlib: only now is it needed

    click.echo(f"run folder: {trained.run.path}")
    click.echo(f"report: {report(trained.run.path)}")
    further = registry.command_line("evaluate", trained.run.path, "--threat", "EXPR")
    click.echo(f"measure it further: {further}")
