"""The weights that a training starts from: those of a run, of a file or of a given network."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor, nn

from curricula.errors import UserError, shortened
from curricula.expressions.given import GIVEN
from curricula.models.kept_state import aside, kept, state_tensors
from curricula.models.normalisation import CHOICES, OWN
from curricula.models.normalise import with_normalisation
from curricula.models.weights import Loaded, Weights, digest_of, load_weights
from curricula.training.layers import choose_layers
from curricula.training.loading import read_network
from curricula.training.run import Run

_DIGEST = re.compile(r"(.+)#([0-9a-f]{32})", re.DOTALL)


@attrs.frozen(kw_only=True, eq=False)
class Initial:
    """The weights that a training starts from.

    Attributes:
        weights: the tensors, as found.
        path: the run folder or file.
        digest: digest of the tensors.
        run: the run; None for a file.
    """

    weights: Weights
    path: Path
    digest: str
    run: Run | None

    @property
    def text(self) -> str:
        """The path with the digest of the weights, as a configuration records it."""
        return f"{self.path}#{self.digest}"

    def defaults(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a run for the fields that describe its network and data, if other
        values leave them out; none for a file.

        Raises:
            UserError: a plugin that they need is missing.
        """
        if self.run is None:
            return {}
        fields = ["model", "normalise"] if "data" in values else ["data", "model", "normalise"]
        missing = [name for name in fields if name not in values]
        if missing:
            self.run.check_plugins(*missing)
        if "data" in missing and "data_root" not in values:
            missing.append("data_root")
        config = self.run.model_config
        return {name: getattr(config, name) for name in missing}


@attrs.frozen(kw_only=True, eq=False)
class Started:
    """A network with the weights that its training starts from.

    Attributes:
        model: the network.
        tensors: its tensors by name, without those of a new last layer.
        normalise: normalisation of its images.
        note: line that says what was loaded and what is new.
    """

    model: nn.Module
    tensors: Mapping[str, Tensor]
    normalise: str
    note: str


def read_initial(text: str) -> Initial:
    """Return the weights that a training starts from.

    Args:
        text: path of a run's folder or of a file with weights; followed by ``#DIGEST``, as
            configurations record it, other weights are refused.

    Raises:
        UserError: the folder is not a run's; the file is missing, damaged or no weights; or the
            weights have changed.
    """
    match = _DIGEST.fullmatch(text)
    path = Path(match[1] if match else text)
    weights = read_network(path)
    digest = digest_of(weights.tensors)
    if match and digest != match[2]:
        raise UserError(
            f"init (--init) {path}: its weights are not those that the configuration records "
            f"(#{match[2]}): restore them, or write --init {path} to start from those that are "
            "there now"
        )
    run = Run.open(path) if path.is_dir() else None
    return Initial(weights=weights, path=path, digest=digest, run=run)


def is_of_object(text: str) -> bool:
    """Return whether initial weights are those of a network that was handed over in Python, or not
    stated."""
    return not text or text.startswith(f"{GIVEN}(")


def begin_with(model: nn.Module, name: str, text: str) -> str:
    """Return the name and the digest of the weights of a network that was handed over in Python.

    Args:
        model: the network.
        name: ``given(NAME)``.
        text: name and digest that a configuration records; empty in a new training.

    Raises:
        UserError: the weights are not those that the configuration records.
    """
    state = model.state_dict().items()
    tensors = {key: each.detach().cpu() for key, each in state if isinstance(each, Tensor)}
    found = f"{name}#{digest_of(tensors)}"
    if text not in ("", found):
        raise UserError(
            f"the weights of the model {name} are not those that the training began with: give the "
            "model as it was then, or start a new run"
        )
    return found


def start_from(
    initial: Initial,
    build: Callable[[str], nn.Module],
    x_NCHW: Tensor,
    *,
    num_classes: int,
    name: str,
    normalise: str | None,
    new_head: bool,
) -> Started:
    """Return a network with initial weights from elsewhere.

    Args:
        initial: the weights.
        build: returns a new network that normalises its images as a text says.
        x_NCHW: images that it takes.
        num_classes: number of its outputs.
        name: its name in messages.
        normalise: normalisation of its images; None for the one in the weights.
        new_head: whether the last layer keeps its new initial weights.

    Raises:
        UserError: the weights do not fit; or no normalisation is stated, and they have none.
    """
    own = initial.run.model_config.normalise if initial.run is not None else OWN
    model = build(own)
    new = _tensors_of_head(model, x_NCHW, num_classes, name) if new_head else []
    try:
        loaded = load_weights(model, initial.weights, what=name, new=new)
    except UserError as error:
        if new_head or not _fits_without_head(build(own), initial, x_NCHW, num_classes):
            raise
        raise UserError(
            f"{error}; or let the last layer be new, init_head new (--init-head new)"
        ) from error
    text = normalise
    if text is None:
        text = own if own != OWN else normalisation_of(loaded, initial.weights.source, name)
    model = with_normalisation(model, text, x_NCHW.shape[1])
    if own not in (OWN, text) and model.state_dict().keys() != build(text).state_dict().keys():
        raise UserError(
            f"normalise (--normalise) {text}: the network of {initial.path} has a layer for its "
            f"normalisation, {own}; leave normalise out, or write mean and standard deviation"
        )
    tensors = {key: each for key, each in state_tensors(model).items() if key not in set(new)}
    found = f" ({', '.join(loaded.notes)})" if loaded.notes else ""
    fresh = f"; new: {shortened(', '.join(new))}" if new else ""
    return Started(
        model=model,
        tensors={**tensors, **aside(kept(model, "model"), "model")},
        normalise=text,
        note=f"init: {len(tensors)} tensors from {initial.path}{found}{fresh}",
    )


def normalisation_of(loaded: Loaded, source: str, name: str) -> str:
    """Return the normalisation in a network's weights.

    Raises:
        UserError: they have none.
    """
    if not loaded.normalised:
        raise UserError(
            f"{source} do not state how the images were normalised in their training: state it, "
            f"normalise (--normalise) {CHOICES}; {OWN} normalises as {name} does"
        )
    return loaded.normalisation


def _tensors_of_head(model: nn.Module, x_NCHW: Tensor, num_classes: int, name: str) -> list[str]:
    """Return the names of the parameters and buffers of a model's head.

    Raises:
        UserError: the head is not known.
    """
    layers = choose_layers(model, x_NCHW, num_classes=num_classes, name=name, needs_head=True)
    modules = [model.get_submodule(module) for module in layers.head_modules]
    head = {id(each) for part in modules for each in (*part.parameters(), *part.buffers())}
    tensors = model.state_dict(keep_vars=True)
    return [key for key, tensor in tensors.items() if id(tensor) in head]


def _fits_without_head(
    model: nn.Module, initial: Initial, x_NCHW: Tensor, num_classes: int
) -> bool:
    """Return whether weights fit a model except for its last layer; the model changes."""
    try:
        new = _tensors_of_head(model, x_NCHW, num_classes, "the model")
        load_weights(model, initial.weights, new=new)
    except UserError:
        return False
    return True
