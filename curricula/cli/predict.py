"""``curricula predict``."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import click

from curricula.cli.options import (
    checkpoint_option,
    device_option,
    format_option,
    given,
    model_option,
)
from curricula.cli.paths import PATH
from curricula.errors import UserError, printable


@click.command()
@click.argument("run", type=PATH)
@click.argument("images", metavar="IMAGE...", type=PATH, nargs=-1, required=True)
@click.option(
    "--top",
    type=int,
    default=3,
    show_default=True,
    help="Number of classes to print for each image, the most probable first, 1 or more.",
)
@model_option()
@checkpoint_option()
@device_option()
@format_option("csv")
def command(
    run: Path, images: tuple[Path, ...], model: str | None, form: str, **flags: Any
) -> None:
    """Classify images by the network of a run: print the most probable classes of each.

    RUN is a folder that `curricula train -o RUN` has written; its data are not needed. IMAGE is a
    file, or a folder whose images are all classified. Photos are turned upright and resized as in
    the training. A file that cannot be read is reported in one line, and the exit status is 1.

    Example: curricula predict runs/first new.jpg
    """
    from curricula.api.predicting import predict
    from curricula.training.run import Run

    failed = False

    def report(error: UserError) -> None:
        nonlocal failed
        failed = True
        click.echo(f"Error: {error}", err=True)

    found = predict(Run.open(run, model=model), list(images), on_error=report, **given(flags))
    rows = [
        (each.image, rank, name, probability)
        for each in found
        for rank, (name, probability) in enumerate(
            zip(each.classes, each.probabilities, strict=True), start=1
        )
    ]
    if form == "json":
        listed = [
            {
                "image": each.image,
                "classes": [
                    {"class": name, "probability": probability}
                    for name, probability in zip(each.classes, each.probabilities, strict=True)
                ],
            }
            for each in found
        ]
        click.echo(json.dumps(listed, indent=2))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["image", "rank", "class", "probability"])
        writer.writerows((printable(image), *rest) for image, *rest in rows)
    elif found:
        from curricula.cli.tables import show_predictions

        show_predictions(found)
    if failed:
        raise click.exceptions.Exit(1)
