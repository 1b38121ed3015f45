"""The contract of a callback: one function for each clause, which raises AssertionError.

Under pytest::

    @pytest.mark.parametrize("clause", CALLBACK_CLAUSES)
    def test_milestone_keeps_the_contract(clause):
        clause(Milestone(accuracy=0.9))
"""

import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from curricula.curriculum import Threat
from curricula.errors import UserError
from curricula.testing.contract import broken_clauses
from curricula.training.callbacks import Callback, Callbacks, NoCallback
from curricula.training.loop import train_plan
from curricula.training.plan import make_plan
from curricula.training.run import BEST, METRICS, Run
from curricula.training.saver import Steps
from curricula.training.step import Update

TRAINING: Mapping[str, Any] = {
    "data": "random(size=12, channels=1, images=20, classes=2)",
    "model": "lenet",
    "perturb": "rot+pgd(0.1, steps=1)",
    "epochs": 2,
    "batch_size": 6,
    "accumulate": 2,
    "device": "cpu",
    "precision": "float32",
    "compile": "off",
}
STEPS = 3  # updates of an epoch
EVENTS = tuple(name for name in vars(NoCallback) if name.startswith("on_"))


class _Interruption(KeyboardInterrupt):
    """Ends a training in the middle."""


class _InterruptAt(NoCallback):
    """Interrupt a training after some update."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, update: Update) -> None:
        if update.progress.step == self.step:
            raise _Interruption


@attrs.frozen
class _Outcome:
    """The metrics of a training, and the weights of its best checkpoint, as bytes."""

    metrics: bytes
    weights: dict[str, bytes]


def _train(path: Path, *callbacks: Callback, resume: bool = False) -> _Outcome:
    """Train a small network into a folder, or continue, and return the outcome."""
    try:
        train_plan(
            make_plan(TRAINING),
            path,
            threats={"clean": Threat.parse("clean")},
            callback=Callbacks(callbacks),
            checkpoint_every=Steps(2),
            resume=resume,
        )
    except UserError as error:
        raise AssertionError(str(error).partition("; everything is saved")[0]) from error
    tensors, _ = Run(path).load(BEST)
    return _Outcome(
        metrics=(path / METRICS).read_bytes(),
        weights={name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
    )


def _random_states() -> list[Any]:
    kind, keys, *rest = np.random.get_state()
    return [random.getstate(), kind, bytes(keys), rest, torch.get_rng_state().tolist()]  # type: ignore[arg-type]


def _tensors_of(update: Update) -> list[Tensor]:
    views = update.parts[0]
    tensors = [update.loss, update.correct_N, views.clean, views.transformed, views.perturbed]
    strengths = [value for value in update.strengths.values() if isinstance(value, Tensor)]
    return [*tensors, *strengths]


class _Checked:
    """Forward events to a callback, and check that it leaves its arguments and the global random
    states as they are."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback

    def __getattr__(self, event: str) -> Callable[..., None]:
        if event not in EVENTS:
            raise AttributeError(event)

        def forward(*values: Any) -> None:
            before = _random_states()
            tensors = [_tensors_of(each) for each in values if isinstance(each, Update)]
            copies = [[tensor.clone() for tensor in of] for of in tensors]
            getattr(self.callback, event)(*values)
            assert before == _random_states(), f"a global random state changed in {event}"
            for of, kept in zip(tensors, copies, strict=True):
                same = all(map(torch.equal, of, kept))
                assert same, "a tensor of the update was written to"

        return forward


def every_event_is_a_method(callback: Callback) -> None:
    """Check that the callback is an object with a method for each event."""
    missing = [event for event in EVENTS if not callable(getattr(callback, event, None))]
    assert not missing, f"no method {', '.join(missing)}; derive the class from NoCallback"
    assert not isinstance(callback, type), "a class; give an object"


def training_is_not_changed(callback: Callback) -> None:
    """Check that metrics and weights are the same with and without the callback, that no global
    random state changes, and that no event raises an error."""
    with tempfile.TemporaryDirectory() as folder:
        alone = _train(Path(folder, "alone"))
        followed = _train(Path(folder, "followed"), _Checked(callback))
    assert followed.metrics == alone.metrics, "metrics.jsonl changed"
    assert followed.weights == alone.weights, "the weights changed"


def several_trainings_are_followed(callback: Callback) -> None:
    """Check that the callback follows one training after another: a run, then its baseline."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("run", "run/baseline"):
            _train(Path(folder, name), callback)


def interrupted_training_is_continued(callback: Callback) -> None:
    """Check that the callback follows a training that is interrupted and continued, in the middle
    of an epoch and at its end, and that metrics and weights stay the same."""
    with tempfile.TemporaryDirectory() as folder:
        alone = _train(Path(folder, "alone"))
        for step in (0, STEPS, 2 * STEPS - 1):
            path = Path(folder, f"interrupted-{step}")
            try:
                _train(path, callback, _InterruptAt(step))
            except _Interruption:
                continued = _train(path, callback, resume=True)
                assert continued == alone, f"another result after an interruption at step {step}"


CALLBACK_CLAUSES: tuple[Callable[[Callback], None], ...] = (
    every_event_is_a_method,
    training_is_not_changed,
    several_trainings_are_followed,
    interrupted_training_is_continued,
)


def check_callback(callback: Callback) -> Mapping[str, str]:
    """Return the error message of each broken clause, by the clause's name; empty if all hold."""
    return broken_clauses(CALLBACK_CLAUSES, callback)
