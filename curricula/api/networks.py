"""Build a network from an expression, with weights from elsewhere, to measure it.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from curricula.errors import UserError
from curricula.expressions.checks import check_call
from curricula.models.normalisation import OWN, parse_normalisation
from curricula.runtime.values import as_path
from curricula.training.config import MeasuredConfig
from curricula.training.run import Run

if TYPE_CHECKING:
    from torch import nn

    from curricula.data.dataset import DataSet


@attrs.frozen(kw_only=True, eq=False)
class Network:
    """A network that was built from an expression, with its data set and their configuration.

    Attributes:
        module: the network, on the CPU, in eval mode.
        data: the data set that it was built for.
        config: the expressions of both, every default stated.
        notes: what was recognised in the file of its weights, a phrase each.
    """

    module: "nn.Module"
    data: "DataSet"
    config: MeasuredConfig
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The network's expression and the file of its weights, for captions."""
        return f"{self.config.model}, weights of {self.config.weights or 'its own'}"


def open_network(
    model: str,
    data: str,
    *,
    weights: str | Path | None = None,
    normalise: str | None = None,
    data_root: str | Path = "data",
) -> Network:
    """Return a network built for the images of a data set, with weights from a file or a run.

    Args:
        model: expression of the network.
        data: expression of the data set.
        weights: file of its weights, or folder of a run; None for a model that brings its own.
        normalise: normalisation of its images; by default that of the weights or of the model.
        data_root: folder of the data set's files.

    Raises:
        UserError: an unknown name or argument; no weights, or weights that do not fit; weights that
            do not say how their images were normalised, without ``normalise``.
    """
    check_call("model", model)
    check_call("dataset", data)
    parse_normalisation(normalise or OWN)
    path = None if weights is None else as_path("weights", weights)

    import torch

    from curricula.data.dataset import resolve_data
    from curricula.models.build import resolve_model
    from curricula.models.normalise import with_normalisation
    from curricula.models.weights import load_weights
    from curricula.runtime.random_state import seed_torch
    from curricula.training.initial import normalisation_of
    from curricula.training.loading import check_classes, read_network

    found = None if path is None else read_network(path)
    loaded = resolve_data(data, root=data_root, download=False)
    data_set: DataSet = loaded.value
    parse_normalisation(normalise or OWN, data_set.in_channels)
    if path is not None and path.is_dir():
        check_classes(Run(path), data_set, "name and order them alike")
    with torch.random.fork_rng(devices=[]):
        seed_torch(0)
        built = resolve_model(model, data_set, fetch=found is None)
        network: nn.Module = built.value
        if found is None:
            seed_torch(1)
            _check_same(network, resolve_model(model, data_set).value, model)
    notes: tuple[str, ...] = ()
    text = normalise or OWN
    if found is not None:
        result = load_weights(network, found, what=f"model {built.call}")
        notes = result.notes
        if normalise is None:
            text = normalisation_of(result, found.source, f"model {built.call}")
    return Network(
        module=with_normalisation(network, text, data_set.in_channels).eval(),
        data=data_set,
        config=MeasuredConfig(
            data=str(loaded.call),
            data_root=str(data_root),
            model=str(built.call),
            normalise=text,
            weights="" if path is None else str(path),
        ),
        notes=notes,
    )


def _check_same(network: "nn.Module", other: "nn.Module", model: str) -> None:
    """Check that two networks of the same expression have the same weights, so that they are not
    random.

    Raises:
        UserError: they differ.
    """
    import torch

    theirs = other.state_dict()
    if any(not torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items()):
        raise UserError(
            f"model {model} has random weights: name the file of its trained weights, --weights "
            "FILE, or train it first (curricula train)"
        )
