"""``curricula evaluate``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curricula.cli.paths import PATH

if TYPE_CHECKING:
    from curricula.training.config import SplitName


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--threat",
    "threats",
    multiple=True,
    metavar="EXPR",
    help="Threat, for example rot:30+pgd(8/255, steps=40); repeatable.  "
    "[default: clean, spatial, adversarial and joint]",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Test images, or the training images held out to pick the checkpoint.",
)
@click.option(
    "--profile",
    "profiled",
    is_flag=True,
    help="Rather than threats: accuracy and fooling rate over growing ranges, into the run folder.",
)
@click.option("--grid", is_flag=True, help="With --profile: also the worst of 775 transformations.")
@click.option(
    "--audit",
    "audited",
    is_flag=True,
    help="Rather than threats: check for gradient masking; status 1 if a check fails.",
)
@click.option(
    "--limit",
    type=int,
    help="The first so many images.  [default: all; 1000 with --profile, 200 with --audit]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random draws.")
@click.option("--batch-size", type=int, help="Images at once.  [default: 250 on a CPU, else tried]")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE")
@click.option("--data-root", metavar="DIR", help="Where the data lies, if it has moved.")
@click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="By validation, or of the last epoch.",
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
)
def command(
    run: Path,
    threats: tuple[str, ...],
    split: "SplitName",
    profiled: bool,
    grid: bool,
    audited: bool,
    limit: int | None,
    seed: int,
    batch_size: int | None,
    device: str,
    data_root: str | None,
    checkpoint: str,
    output: str,
) -> None:
    """Measure a run under threats, in float32.

    Example: curricula evaluate runs/demo --threat 'worst(rot:30, k=10)+pgd:0.1'
    """
    from curricula.api import evaluate
    from curricula.cli.progress import ProgressBar
    from curricula.cli.tables import show_accuracies
    from curricula.errors import UserError
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.training.run import BEST, LAST

    modes = [name for name, on in {"--profile": profiled, "--audit": audited}.items() if on]
    if len(modes) > 1:
        raise UserError("--profile and --audit are two measurements: ask for one at a time")
    if modes and threats:
        raise UserError(f"{modes[0]} has threats of its own: leave out --threat, or {modes[0]}")
    if modes and split != "test":
        raise UserError(f"{modes[0]} is of the test images: leave out --split, or {modes[0]}")
    if grid and not profiled:
        raise UserError("--grid is part of --profile: add it, or write --threat 'grid(rot:30)'")
    keep_freed_memory()
    setting: dict[str, Any] = {
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
        "data_root": data_root,
        "checkpoint": {"best": BEST, "last": LAST}[checkpoint],
    }
    if profiled:
        _profile(run, output, grid=grid, limit=limit, **setting)
        return
    if audited:
        _audit(run, output, limit=limit, **setting)
        return
    with ProgressBar("evaluation") as work:
        results = evaluate(
            run, threats=threats, split=split, limit=limit, progress=work.progress, **setting
        )
    if output == "json":
        click.echo(json.dumps([result.as_json() for result in results], indent=2))
    else:
        click.echo(f"run: {run}")
        show_accuracies({"accuracy": results}, split)


def _profile(run: Path, output: str, *, limit: int | None, **setting: Any) -> None:
    """Measure, write and show a run's profile."""
    from curricula.api import PROFILE_IMAGES, profile_run
    from curricula.cli.progress import ProgressBar
    from curricula.cli.tables import show_profile
    from curricula.reporting.report import report

    with ProgressBar("profile") as work:
        found = profile_run(
            run,
            limit=PROFILE_IMAGES if limit is None else limit,
            progress=work.progress,
            **setting,
        )
    page = report(run, data_root=setting["data_root"])
    if output == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    click.echo(f"run: {run}")
    show_profile(found)
    click.echo(f"report: {page}")


def _audit(run: Path, output: str, *, limit: int | None, **setting: Any) -> None:
    """Audit a run, write and show what was found; the status tells whether all checks passed."""
    from curricula.api import audit_run
    from curricula.cli.progress import ProgressBar
    from curricula.cli.tables import show_audit
    from curricula.evaluation.audit import IMAGES
    from curricula.reporting.report import report
    from curricula.training.run import AUDIT, Run

    with ProgressBar("audit") as work:
        found = audit_run(
            run, limit=IMAGES if limit is None else limit, progress=work.progress, **setting
        )
    page = report(run, data_root=setting["data_root"])
    if output == "json":
        click.echo(json.dumps(Run.open(run).read_json(AUDIT), indent=2))
    else:
        click.echo(f"run: {run}")
        show_audit(found)
        click.echo(f"report: {page}")
    if not found.passed:
        raise click.exceptions.Exit(1)
