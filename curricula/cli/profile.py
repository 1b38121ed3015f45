"""``curricula profile``."""

import json
from pathlib import Path
from typing import Any

import click

from curricula.cli.options import format_option, given, measurement_options
from curricula.cli.paths import PATH
from curricula.runtime.records import to_json


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--grid", is_flag=True, help="Also measure the worst of 775 rotations and translations."
)
@measurement_options("1000")
@format_option()
def command(run: Path, grid: bool, form: str, **flags: Any) -> None:
    """Measure the robustness profile of a run: accuracy and fooling rate over growing ranges.

    Rotations, translations and PGD are measured alone and jointly on the test images. The result
    goes into the run folder, as profile.json, and into the run's report.

    RUN is a folder that `curricula train -o RUN` has written.

    Example: curricula profile runs/first
    """
    from curricula.api.measuring import robustness_profile
    from curricula.cli.tables import show_profile
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import from_first, joined
    from curricula.runtime.progress import ProgressBar
    from curricula.training.run import check_page

    keep_freed_memory()
    settings = given(flags)
    with joined() as place, ProgressBar("profile") as bar:
        from_first(lambda: check_page(run))
        profile = robustness_profile(run, grid=grid, progress=bar.progress, **settings)
    if not place.is_first:
        return

    from curricula.reporting.report import report  # imports matplotlib: only now is it needed

    page = report(run, data_root=settings.get("data_root"))
    if form == "json":
        click.echo(json.dumps(to_json(profile), indent=2))
    else:
        click.echo(f"run: {run}")
        show_profile(profile)
        click.echo(f"report: {page}")
