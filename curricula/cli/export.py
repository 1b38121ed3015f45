"""``curricula export``."""

import json
from pathlib import Path
from typing import Any

import attrs
import click

from curricula.cli.options import (
    checkpoint_option,
    format_option,
    given,
    model_option,
    moved_data_option,
    output_option,
)
from curricula.cli.paths import PATH


@click.command()
@click.argument("run", type=PATH)
@output_option("File to write.", metavar="FILE.onnx|FILE.pt2", required=True)
@model_option()
@checkpoint_option()
@click.option(
    "--limit",
    type=int,
    help="Compare on the first LIMIT test images, 1 to 1,000,000,000.  [default: 100]",
)
@moved_data_option()
@format_option()
def command(run: Path, output: Path, model: str | None, form: str, **flags: Any) -> None:
    """Write the network of a run for other programs, as ONNX or as a program of torch.export.

    The file takes float images NCHW in [0, 1] and returns logits; the normalisation is inside, and
    the metadata state the class names and the size. Its logits are compared with the network's
    first; if they differ by more than 1e-4, nothing is written.

    RUN is a folder that `curricula train -o RUN` has written.

    Example: curricula export runs/first -o model.onnx
    """
    from curricula.api.exporting import export
    from curricula.training.run import Run

    exported = export(Run.open(run, model=model), output, **given(flags))
    if form == "json":
        click.echo(json.dumps(attrs.asdict(exported) | {"path": str(exported.path)}, indent=2))
    else:
        click.echo(
            f"{exported.path}: the logits of {exported.images:,} {exported.source} differ by at "
            f"most {exported.difference:.2g} from those of {run}"
        )
