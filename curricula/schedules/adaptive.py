"""Schedules that listen: strength follows how the model fares.

What they hear of a batch is whether the model was right about each training image, as it was
perturbed by all links of the curriculum at their present strengths. What they hear of an epoch are
accuracies on the validation images: clean, and under the joint threat of the curriculum at full
strength (PGD-10).
"""

from collections.abc import Mapping
from typing import Literal

import attrs
import torch
from attrs.validators import and_, ge, gt, le
from torch import Tensor

from curricula.interfaces import Feedback, Progress, ScheduleState, Strength


def _share(default: float) -> float:
    found: float = attrs.field(default=default, validator=and_(ge(0.0), le(1.0)))
    return found


def _step(default: float) -> float:
    found: float = attrs.field(default=default, validator=and_(gt(0.0), le(1.0)))
    return found


class Listener:
    """Strength is a part of the state; what a schedule does not heed leaves the state as it is."""

    def __call__(self, progress: Progress, state: ScheduleState) -> Strength:
        return float(state["strength"])

    def after_batch(self, state: ScheduleState, feedback: Feedback) -> ScheduleState:
        return state

    def after_epoch(self, state: ScheduleState, validation: Mapping[str, float]) -> ScheduleState:
        return state


@attrs.frozen(kw_only=True)
class Gated(Listener):
    """`gated`: after so many updates, the strength grows by ``step`` if the model got a share of
    the perturbed training images right in them; if not, it stays for as many again. So does
    curriculum adversarial training (Cai et al. 2018) make its attack stronger.

    Args:
        threshold: that share, in [0, 1].
        step: above 0 and up to 1.
        updates: 1 or more.
        low: strength at the beginning, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    threshold: float = _share(0.6)
    step: float = _step(0.1)
    updates: int = attrs.field(default=50, validator=ge(1))
    low: float = _share(0.0)

    def start(self, num_train: int) -> ScheduleState:
        return {
            "strength": torch.tensor(self.low),
            "right": torch.tensor(0.0),
            "updates": torch.tensor(0),
        }

    def after_batch(self, state: ScheduleState, feedback: Feedback) -> ScheduleState:
        right = state["right"] + feedback.correct.float().mean()
        updates = state["updates"] + 1
        ends = updates >= self.updates
        passes = ends & (right >= self.threshold * updates)
        return {
            "strength": (state["strength"] + self.step * passes).clamp(max=1),
            "right": right * ~ends,
            "updates": updates * ~ends,
        }


@attrs.frozen(kw_only=True)
class Fooling(Listener):
    """`fooling`: the strength grows while fewer of the perturbed training images than ``target``
    are misclassified, and falls while more are: each update moves it by ``rate`` times the
    difference.

    Args:
        target: share of misclassified images to keep, in [0, 1].
        rate: above 0 and up to 1.
        low: strength at the beginning, and the least one, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    target: float = _share(0.4)
    rate: float = _step(0.02)
    low: float = _share(0.0)

    def start(self, num_train: int) -> ScheduleState:
        return {"strength": torch.tensor(self.low)}

    def after_batch(self, state: ScheduleState, feedback: Feedback) -> ScheduleState:
        fooled = 1 - feedback.correct.float().mean()
        moved = state["strength"] + self.rate * (self.target - fooled)
        return {"strength": moved.clamp(self.low, 1)}


@attrs.frozen(kw_only=True)
class Plateau(Listener):
    """`plateau`: the strength grows by ``step`` once a validation accuracy has not risen above its
    best for so many epochs; the best is then forgotten.

    Args:
        on: ``clean`` accuracy, or ``joint``, under the curriculum's threat at full strength.
        step: above 0 and up to 1.
        patience: epochs, 1 or more.
        low: strength at the beginning, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    on: Literal["clean", "joint"] = "joint"
    step: float = _step(0.25)
    patience: int = attrs.field(default=1, validator=ge(1))
    low: float = _share(0.25)

    def start(self, num_train: int) -> ScheduleState:
        return {
            "strength": torch.tensor(self.low),
            "best": torch.tensor(-1.0),
            "waited": torch.tensor(0),
        }

    def after_epoch(self, state: ScheduleState, validation: Mapping[str, float]) -> ScheduleState:
        better = validation[self.on] > state["best"]
        best = torch.where(better, validation[self.on], state["best"])
        waited = (state["waited"] + 1) * ~better
        grows = waited >= self.patience
        return {
            "strength": (state["strength"] + self.step * grows).clamp(max=1),
            "best": torch.where(grows, -1.0, best),
            "waited": waited * ~grows,
        }


@attrs.frozen(kw_only=True)
class PerImage(Listener):
    """`per-image`: each training image has a strength of its own, which grows by ``up`` when the
    model was right about it, as it was perturbed, and falls by ``down`` when it was not.

    So does instance-adaptive training (Balaji et al. 2019) set the radius of each image.

    Args:
        up: added when right, above 0 and up to 1.
        down: taken off when wrong, above 0 and up to 1.
        low: strength at the beginning, and the least one, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    up: float = _step(0.1)
    down: float = _step(0.1)
    low: float = _share(0.0)

    def __call__(self, progress: Progress, state: ScheduleState) -> Tensor:
        return state["strength"]

    def start(self, num_train: int) -> ScheduleState:
        return {"strength": torch.full((num_train,), self.low)}

    def after_batch(self, state: ScheduleState, feedback: Feedback) -> ScheduleState:
        step = torch.where(feedback.correct, self.up, -self.down)
        moved = (state["strength"][feedback.indices] + step).clamp(self.low, 1)
        return {"strength": state["strength"].index_copy(0, feedback.indices, moved)}
