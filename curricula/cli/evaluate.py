"""``curricula evaluate``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from curricula.training.config import Part


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
    "--part",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Test images, or the training images held out to pick the checkpoint.",
)
@click.option("--limit", type=int, help="The first so many images.  [default: all]")
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
    part: "Part",
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
    from curricula.allocation import keep_freed_memory
    from curricula.api import evaluate
    from curricula.cli.tables import show_accuracies
    from curricula.training.run import BEST, LAST

    keep_freed_memory()
    results = evaluate(
        run,
        threats=threats,
        part=part,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        device=device,
        data_root=data_root,
        checkpoint={"best": BEST, "last": LAST}[checkpoint],
    )
    if output == "json":
        click.echo(json.dumps([result.as_json() for result in results], indent=2))
    else:
        click.echo(f"run: {run}")
        show_accuracies({"accuracy": results}, part)
