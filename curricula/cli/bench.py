"""``curricula bench``."""

import json
from pathlib import Path
from typing import Any

import click

from curricula.cli.paths import PATH


@click.command()
@click.option("--data", metavar="DATA", help="Shape and images.  [default: random, of 3x32x32]")
@click.option("--data-root", metavar="DIR", help="Folder of the data set.  [default: data]")
@click.option("--model", metavar="MODEL", help="Network.  [default: the data set's]")
@click.option("--perturb", metavar="EXPR", help="At full strength.  [default: rot+pgd]")
@click.option("--objective", metavar="OBJECTIVE", help="Training loss.  [default: at]")
@click.option("--batch-size", type=int, help="Images per update.")
@click.option("--optimizer", metavar="NAME", help="sgd or adamw.")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ...  [default: auto]")
@click.option("--precision", metavar="NAME", help="auto, float32 or bf16.  [default: auto]")
@click.option(
    "--compile",
    metavar="NAME",
    help="on or off, or auto: the faster one.  [default: off]",
)
@click.option(
    "--against",
    multiple=True,
    metavar="LIBRARY",
    help="The same training as a plain loop around torchattacks, foolbox or art; repeatable.",
)
@click.option("--rounds", type=int, default=5, show_default=True, help="Medians of so many.")
@click.option("--json", "file", type=PATH, help="Write the figures there.")
def command(against: tuple[str, ...], rounds: int, file: Path | None, **flags: Any) -> None:
    """Measure how fast training is here, and which share that is of what the network allows.

    The limit is the time of the update's passes of the network alone, at the same precision:
    nothing but the network would run faster.

    Example: curricula bench --model resnet18 --against torchattacks
    """
    from curricula.benchmark.measure import bench
    from curricula.cli.tables import show_speed
    from curricula.runtime.files import check_output, write_output
    from curricula.runtime.malloc import keep_freed_memory

    if file is not None:
        check_output(file)
    keep_freed_memory()
    values = {name: value for name, value in flags.items() if value is not None}
    measured = bench(
        rounds=rounds,
        against=against,
        noted=lambda line: click.echo(line, err=True),
        **{"compile": "off", **values},
    )
    show_speed(measured)
    if file is not None:
        write_output(file, json.dumps(measured.as_json(), indent=2).encode() + b"\n")
