"""``curricula report``."""

from pathlib import Path

import click

from curricula.cli.paths import PATH


@click.command()
@click.argument("folder", metavar="RUN_OR_SWEEP", type=PATH)
@click.option("--data-root", metavar="DIR", help="Where the data lies, if it has moved.")
def command(folder: Path, data_root: str | None) -> None:
    """Write the page of a run or a sweep: report.html, which needs nothing else, and figures/.

    It shows what was measured, and says which command measures the rest.

    Example: curricula report runs/demo
    """
    from curricula.reporting.report import report

    click.echo(f"report: {report(folder, data_root=data_root)}")
