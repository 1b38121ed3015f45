"""``curricula evaluate``."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--threat",
    "threats",
    multiple=True,
    metavar="EXPR",
    help="Threat, for example rot:30+pgd(8/255, steps=40); repeatable.  "
    "[default: clean, spatial, adversarial and joint]",
)
@click.option(
    "--audit",
    is_flag=True,
    help="Check for gradient masking instead; status 1 if a check fails.",
)
@click.option(
    "--limit", type=int, help="The first so many test images.  [default: all; 200 of an audit]"
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
    audit: bool,
    limit: int | None,
    seed: int,
    batch_size: int | None,
    device: str,
    data_root: str | None,
    checkpoint: str,
    output: str,
) -> None:
    """Measure a run under threats, on the test split and in float32.

    Example: curricula evaluate runs/demo --threat 'worst(rot:30, k=10)+pgd:0.1'
    """
    from curricula.allocation import keep_freed_memory
    from curricula.api import audit_run, evaluate
    from curricula.cli.tables import show_accuracies, show_audit
    from curricula.errors import UserError
    from curricula.output import check_output
    from curricula.training.run import AUDIT, BEST, LAST, Run

    keep_freed_memory()
    files = {"best": BEST, "last": LAST}
    if audit:
        if threats:
            raise UserError("--audit has its own attacks; leave out --threat, or run them apart")
        opened = Run.open(run)
        check_output(run / AUDIT)
        found = audit_run(
            opened,
            limit=limit,
            seed=seed,
            batch_size=batch_size,
            device=device,
            data_root=data_root,
            checkpoint=files[checkpoint],
        )
        written = {"checkpoint": files[checkpoint], **found.as_json()}
        if output == "json":
            click.echo(json.dumps(written, indent=2))
        else:
            click.echo(f"run: {run}")
            show_audit(found)
        opened.write_json(AUDIT, written)
        if not found.passed:
            raise click.exceptions.Exit(1)
        return
    results = evaluate(
        run,
        threats=threats,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        device=device,
        data_root=data_root,
        checkpoint=files[checkpoint],
    )
    if output == "json":
        click.echo(json.dumps([result.as_json() for result in results], indent=2))
    else:
        click.echo(f"run: {run}")
        show_accuracies({"accuracy": results})
