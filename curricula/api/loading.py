"""Load what a run holds: its network and its data set.

Nothing here imports torch before it has checked the values of a call, so that a mistake is
answered at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from curricula.runtime.values import check_choice, known_keywords
from curricula.training.run import BEST, LAST, Run, holds

if TYPE_CHECKING:
    from torch import nn

    from curricula.data.dataset import DataSet

Checkpoint = Literal["best", "last"]
CHECKPOINTS: Mapping[str, str] = {"best": BEST, "last": LAST}
"""The file of each checkpoint."""


def open_data(run: Run, *, root: str | Path | None = None) -> "DataSet":
    """Return the data set that a run was trained on.

    Args:
        run: the run.
        root: folder of its files, if they have moved since.

    Raises:
        UserError: the data are missing, or have changed since.
    """
    from curricula.data.dataset import load_data

    run.check_plugins()
    config = run.config
    data = load_data(config.data, root=root or config.data_root)
    run.check_data(data)
    return data


@known_keywords()
def load_model(
    run: Run | str | Path, *, checkpoint: Checkpoint = "best", data: "DataSet | None" = None
) -> "nn.Module":
    """Return the trained network of a run, on the CPU, in eval mode.

    Args:
        run: a run or its folder.
        checkpoint: ``best`` on validation, or the ``last`` epoch's.
        data: its data set, if it is loaded already.

    Raises:
        UserError: no such run, a damaged checkpoint, a model that no plugin provides.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    check_checkpoint(run, checkpoint)

    import torch

    from curricula.models.build import build_model

    run.check_plugins()
    data = open_data(run) if data is None else data
    with torch.random.fork_rng(devices=[]):
        model = build_model(run.config.model, data)
    run.load_weights(CHECKPOINTS[checkpoint], model)
    return model.eval()


def check_checkpoint(run: Run, checkpoint: str) -> None:
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    _ = run.config  # raises if it is damaged
    if not holds(run.path, CHECKPOINTS[checkpoint]):
        raise run.missing(CHECKPOINTS[checkpoint])
