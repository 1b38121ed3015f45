"""``curricula bench``."""

import json
from pathlib import Path
from typing import Any

import click

from curricula.benchmark import LIBRARIES, MAX_ROUNDS
from curricula.cli.options import format_option, given, output_option, training_options
from curricula.runtime.records import to_json


@click.command()
@training_options(
    "data",
    "data-root",
    "model",
    "perturb",
    "objective",
    "batch-size",
    "optimizer",
    "device",
    "precision",
    "compile",
    data="random pixels of 3x32x32",
    perturb="rot+pgd",
    compile="off",
)
@click.option(
    "--against",
    multiple=True,
    type=click.Choice(LIBRARIES),
    help="Also time the same training as a plain loop around this library; repeatable.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, MAX_ROUNDS),
    default=5,
    show_default=True,
    help=f"Number of rounds, 1 to {MAX_ROUNDS:,}; medians are reported.",
)
@format_option()
@output_option("JSON file to write all measurements to.")
def command(
    against: tuple[str, ...], rounds: int, form: str, output: Path | None, **flags: Any
) -> None:
    """Measure the speed of training, and its share of what the network allows.

    The limit is the time of the update's passes of the network alone, at the same precision.

    Example: curricula bench --model resnet18 --against torchattacks
    """
    from curricula.runtime.files import check_output, write_output
    from curricula.runtime.malloc import keep_freed_memory
    from curricula.training.checks import check_values

    if output is not None:
        check_output(output)
    check_values(given(flags))
    keep_freed_memory()

    from curricula.benchmark.measure import bench
    from curricula.cli.tables import show_speed

    measured = bench(
        rounds=rounds,
        against=against,
        noted=lambda line: click.echo(line, err=True),
        **{"compile": "off", **given(flags)},
    )
    text = json.dumps(to_json(measured), indent=2)
    if form == "json":
        click.echo(text)
    else:
        show_speed(measured)
    if output is not None:
        write_output(output, text.encode() + b"\n")
