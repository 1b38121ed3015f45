"""``curricula audit``."""

import json
from pathlib import Path
from typing import Any

import click

from curricula.cli.options import format_option, given, measurement_options
from curricula.cli.paths import PATH


@click.command()
@click.argument("run", type=PATH)
@measurement_options("200")
@format_option()
def command(run: Path, form: str, **flags: Any) -> None:
    """Check a run for gradient masking, which makes attacks fail without making a model robust.

    The result goes into the run folder, as audit.json, and into the run's report. The exit status
    is 1 if a check fails.

    RUN is a folder that `curricula train -o RUN` has written.

    Example: curricula audit runs/first
    """
    from curricula.api.measuring import audit
    from curricula.cli.tables import show_audit
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import from_first, joined
    from curricula.runtime.progress import ProgressBar
    from curricula.training.run import AUDIT, Run, check_page

    keep_freed_memory()
    settings = given(flags)
    with joined() as place, ProgressBar("audit") as bar:
        from_first(lambda: check_page(run))
        found = audit(run, progress=bar.progress, **settings)
    if not place.is_first:
        return

    from curricula.reporting.report import report  # imports matplotlib: only now is it needed

    page = report(run, data_root=settings.get("data_root"))
    if form == "json":
        click.echo(json.dumps(Run.open(run).read_json(AUDIT), indent=2))
    else:
        click.echo(f"run: {run}")
        show_audit(found)
        click.echo(f"report: {page}")
    if not found.passed:
        raise click.exceptions.Exit(1)
