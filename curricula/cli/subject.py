"""Open what a command measures: a run, a run on other data, or a model from elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curricula.cli.options import Option, combined, named
from curricula.cli.paths import PATH
from curricula.errors import UserError

if TYPE_CHECKING:
    from curricula.api.networks import Network


def subject_options() -> Option:
    """Return a decorator that adds the argument RUN and the options that name a model instead."""
    return combined(
        click.argument("run", type=PATH, required=False),
        click.option(
            "--model",
            metavar="MODEL",
            callback=named,
            help="Measure this network instead of a run, such as resnet18 or FILE.py:NAME.",
        ),
        click.option(
            "--weights",
            type=PATH,
            metavar="FILE",
            help="Weights of --model: .safetensors, .pt, .pth, or a run folder.",
        ),
        click.option(
            "--data",
            metavar="DATA",
            help="Data set of --model, or other data for a run.  [default: the run's]",
        ),
        click.option(
            "--normalise",
            metavar="NORMALISATION",
            help="Normalisation that --model was trained with: cifar10, cifar100, imagenet, mnist, "
            "none or MEAN/STD, such as 0.5/0.25.",
        ),
    )


def check_subject(
    run: Path | None,
    *,
    model: str | None,
    weights: Path | None,
    data: str | None,
    normalise: str | None,
    **flags: Any,
) -> None:
    """Check that a command names a run, or a model with its data.

    Raises:
        UserError: it names neither, or both.
    """
    of_model = {"weights": weights, "normalise": normalise, "output": flags.get("output")}
    if run is not None:
        for name, value in {"model": model, **of_model}.items():
            if value is not None:
                raise UserError(
                    f"run {run} has its model and its folder: leave out --{name}, or leave out the "
                    "run"
                )
        return
    if model is None:
        given = [
            f"--{name} belongs to a model: " for name in of_model if of_model[name] is not None
        ]
        begin = given[0] if given else "there is nothing to measure: name a run folder, or "
        raise UserError(f"{begin}add --model, such as --model resnet18")
    if data is None:
        raise UserError(f"model {model} is measured on data: add --data, such as --data cifar10")
    if flags.get("checkpoint") is not None:
        raise UserError("--checkpoint is for a run: leave it out")


def open_subject(
    run: Path | None,
    *,
    model: str | None,
    weights: Path | None,
    data: str | None,
    normalise: str | None,
    data_root: str | None,
) -> "Path | Network":
    """Return the run, or the network with its weights, and print what was recognised in these."""
    if run is not None:
        return run
    assert model is not None
    assert data is not None
    from curricula.api.networks import open_network

    network = open_network(
        model, data, weights=weights, normalise=normalise, data_root=data_root or "data"
    )
    if network.notes:
        click.echo(f"weights {weights}: recognised {', '.join(network.notes)}", err=True)
    return network
