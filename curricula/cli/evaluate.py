"""``curricula evaluate``."""

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
    "--threat",
    "threats",
    multiple=True,
    metavar="EXPR",
    help="Threat, such as rot:30+pgd(8/255, steps=40); repeatable.  "
    "[default: clean, spatial, adversarial and joint]",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Images to measure: the test images, or the training images held out for validation.",
)
@measurement_options("all")
@format_option()
def command(run: Path, threats: tuple[str, ...], split: Any, form: str, **flags: Any) -> None:
    """Measure the accuracy of a run under threats, in float32.

    RUN is a folder that `curricula train -o RUN` has written.

    Example: curricula evaluate runs/first --threat 'worst(rot:30, k=10)+pgd:0.1'
    """
    from curricula.api.measuring import evaluate
    from curricula.cli.progress import ProgressBar
    from curricula.cli.tables import show_accuracies
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.runtime.processes import joined

    keep_freed_memory()
    with joined() as place, ProgressBar("evaluation") as bar:
        results = evaluate(
            run, threats=threats or None, split=split, progress=bar.progress, **given(flags)
        )
    if not place.is_first:
        return
    if form == "json":
        click.echo(json.dumps(to_json(results), indent=2))
    else:
        click.echo(f"run: {run}")
        show_accuracies({"accuracy": results}, split)
