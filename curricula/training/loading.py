"""Load what a run holds: its network and its data set.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from curricula.errors import UserError, shown
from curricula.expressions.checks import check_call
from curricula.expressions.given import is_given
from curricula.expressions.model_files import named_model
from curricula.runtime.default_device import cpu_by_default
from curricula.runtime.values import check_choice, known_keywords
from curricula.training.config import MeasuredConfig
from curricula.training.run import BEST, DATA, LAST, Run, holds

if TYPE_CHECKING:
    from torch import nn

    from curricula.data.dataset import DataSet
    from curricula.data.spec import ImageSpec
    from curricula.models.weights import Weights

Checkpoint = Literal["best", "last"]
CHECKPOINTS: Mapping[str, str] = {"best": BEST, "last": LAST}
"""The file of each checkpoint."""


def open_data(run: Run, *, root: str | Path | None = None) -> "DataSet":
    """Return the data set that a run was trained or measured on.

    Args:
        run: the run.
        root: folder of its files, if they have moved since.

    Raises:
        UserError: the data are missing, have changed since, or were given in Python.
    """
    from curricula.data.dataset import load_data

    config = run.model_config
    if is_given(config.data):
        raise UserError(
            f"the data of run {run.path} were given in Python, as {config.data}: give them again "
            "with data= (--data)"
        )
    run.check_plugins("data")
    data = load_data(config.data, root=root or config.data_root)
    run.check_data(data)
    return data


def image_spec(run: Run) -> "DataSet | ImageSpec":
    """Return the classes, channels and size of the images that a run's network was built for: as
    the run states them, or else, in runs of earlier versions, as its data set does."""
    spec = _stated_spec(run)
    return open_data(run) if spec is None else spec


def _stated_spec(run: Run) -> "ImageSpec | None":
    """Return the classes and the shape of the images that a run states; runs of earlier versions
    state none."""
    from curricula.data.identity import DataIdentity

    stored = run.read(DATA, DataIdentity)
    return None if stored is None else stored.spec


def max_value(run: Run) -> int:
    """Return the whole number that means 1.0 in the images of a run's data set; 255 in runs of
    earlier versions, which do not state it."""
    from curricula.data.identity import DataIdentity

    stored = run.read(DATA, DataIdentity)
    return 255 if stored is None else stored.max_value or 255


def check_classes(run: Run, data: "DataSet", fix: str) -> None:
    """Check that the outputs of a run's network are the classes of a data set, in the same order,
    as far as their names tell.

    Args:
        run: the run.
        data: the data set.
        fix: what the user can do.

    Raises:
        UserError: a label has a different class.
    """
    from curricula.data.identity import DataIdentity
    from curricula.models.class_names import check_same_classes

    stored = run.read(DATA, DataIdentity)
    if stored is not None:
        check_same_classes(data.classes, data.name, stored.classes, f"run {run.path}", fix)


def read_network(path: Path) -> "Weights":
    """Return the weights of a network from a file of any origin, or from a run's folder: its best
    checkpoint.

    Raises:
        UserError: the file is missing, damaged or no weights; the folder is not a run's.
    """
    from curricula.models.weights import read_weights

    if not path.is_dir():
        return read_weights(path)
    run = Run.open(path)
    check_checkpoint(run, "best")
    return read_weights(path / BEST)


@known_keywords()
@cpu_by_default()
def load_model(
    run: Run | str | Path,
    *,
    checkpoint: Checkpoint = "best",
    data: "DataSet | ImageSpec | None" = None,
    model: "nn.Module | str | None" = None,
) -> "nn.Module":
    """Return the network of a run, on the CPU, in eval mode.

    Neither the data are needed, nor plugins other than the one that provides the model.

    Args:
        run: a run or its folder.
        checkpoint: ``best`` on validation, or the ``last`` epoch's.
        data: classes, channels and size of the images to build the network for; by default those
            that the run states.
        model: the network without its weights, for a run whose model was given in Python: a
            module, which is copied, or an expression such as ``mynet.py:MyNet``; by default
            ``run.model``.

    Raises:
        UserError: no such run, a damaged checkpoint, a model that no plugin provides or that was
            given in Python, or weights of a different model.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    check_checkpoint(run, checkpoint)
    config = run.model_config
    model = run.model if model is None else model
    text = config.model
    if isinstance(model, str):
        text = named_model(model)
        check_call("model", text)
    elif model is None:
        if is_given(text):
            raise UserError(
                f"the model of run {run.path} was given in Python, as {text}: give it again, "
                "Run.open(RUN, model=MODEL), or --model FILE.py:NAME"
            )
        run.check_plugins("model")

    import torch
    from torch import nn

    from curricula.models.build import resolve_model
    from curricula.models.normalise import with_normalisation
    from curricula.training.probe import SAME_NETWORK, check_probe
    from curricula.victim.copies import copied

    spec = image_spec(run) if data is None else data
    if model is None or isinstance(model, str):
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = resolve_model(
                text, spec, normalise=config.normalise, fetch=False
            ).value
    elif isinstance(model, nn.Module):
        own = copied(model).cpu()
        network = with_normalisation(own, config.normalise, spec.in_channels)
    else:
        raise UserError(f"model must be a torch.nn.Module or its expression, not {shown(model)}")
    file = CHECKPOINTS[checkpoint]
    texts = run.load_weights(file, network)
    stated = _stated_spec(run)
    if stated is not None and spec.image_shape == stated.image_shape:
        source = f"checkpoint {run.path / file}"
        check_probe(texts, network, spec.image_shape, source=source, fix=SAME_NETWORK)
    return network.eval()


def check_checkpoint(run: Run, checkpoint: str) -> None:
    """Check that a run has a checkpoint, and that its configuration can be read.

    Raises:
        UserError: it has none of this name, or its configuration is damaged.
    """
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    if isinstance(run.model_config, MeasuredConfig) and checkpoint != "best":
        raise UserError(
            f"run {run.path} was measured, not trained, and has one set of weights: leave out "
            "checkpoint (--checkpoint)"
        )
    if not holds(run.path, CHECKPOINTS[checkpoint]):
        raise run.missing(CHECKPOINTS[checkpoint])
