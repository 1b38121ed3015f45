"""``curricula report``."""

from pathlib import Path

import click

from curricula.cli.options import model_option, moved_data_option
from curricula.cli.paths import PATH


@click.command()
@click.argument("folder", metavar="RUN_OR_SWEEP", type=PATH)
@model_option()
@moved_data_option()
def command(folder: Path, model: str | None, data_root: str | None) -> None:
    """Write the page of a run or a sweep: a self-contained report.html, and figures/.

    It shows the stored measurements, and the commands that make the missing ones.

    RUN_OR_SWEEP is a folder that `curricula train` or `curricula sweep` has written.

    Example: curricula report runs/first
    """
    from curricula.sweeps.folder import sweep_in
    from curricula.training.run import Run, check_page

    subject: Path | Run = folder
    if sweep_in(folder) is None:
        subject = Run.open(folder, model=model)  # before the imports below, which take seconds
    check_page(folder)

    from curricula.reporting.report import report

    click.echo(f"report: {report(subject, data_root=data_root)}")
