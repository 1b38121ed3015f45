"""Adaptive schedules: the strength follows the model's accuracy.

After a batch they receive whether the model classified each training image correctly, as perturbed
by all links of the curriculum at their current strengths. After an epoch they receive the
accuracies on the validation images: clean, and under the joint threat of the curriculum at full
strength (PGD-10).
"""

from collections.abc import Mapping
from typing import Literal

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from curricula.interfaces import Feedback, Progress, ScheduleState, Strength
from curricula.schedules.curves import valid_positive_share, valid_share

valid_count = and_(ge(1), le(10**9))

RIGHT_BY_CHANCE = 10  # images that a mean accuracy must let chance classify correctly


def _share(default: float) -> float:
    field: float = attrs.field(default=default, validator=valid_share)
    return field


def _step(default: float) -> float:
    field: float = attrs.field(default=default, validator=valid_positive_share)
    return field


class Adaptive:
    """Base of the schedules that keep their strength in a state; it ignores all feedback by
    default."""

    def __call__(self, progress: Progress, state: ScheduleState) -> Strength:
        return float(state["strength"])

    def after_batch(self, state: ScheduleState, feedback: Feedback) -> ScheduleState:
        return state

    def after_epoch(self, state: ScheduleState, validation: Mapping[str, float]) -> ScheduleState:
        return state


@attrs.frozen(kw_only=True)
class Gated(Adaptive):
    """Raise the strength by ``step`` after every ``updates`` updates in which the model classified
    enough perturbed training images correctly, as in curriculum adversarial training (Cai et al.
    2018).

    Args:
        threshold: share of images that the model must classify correctly, in [0, 1].
        step: increase of the strength, above 0 to 1.
        updates: number of updates between two decisions, 1 to 1e9.
        low: strength at the beginning, in [0, 1].

    Raises:
        ValueError: a value out of range.

    Example:
        Three of four images are correct, which is enough for a threshold of 0.6:

        >>> now = Progress(step=0, total_steps=100, epoch=0, total_epochs=10)
        >>> right = torch.tensor([True, True, True, False])
        >>> batch = Feedback(
        ...     indices=torch.arange(4), correct=right, strength=torch.zeros(4),
        ...     progress=now, chance=0.1,
        ... )
        >>> schedule = Gated(threshold=0.6, step=0.1, updates=2)
        >>> state = schedule.start(num_train=4)
        >>> for _ in range(4):
        ...     state = schedule.after_batch(state, batch)
        ...     print(f"{schedule(now, state):.1f}")
        0.0
        0.1
        0.1
        0.2
    """

    threshold: float = _share(0.6)
    step: float = _step(0.1)
    updates: int = attrs.field(default=50, validator=valid_count)
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
class Fooling(Adaptive):
    """Keep a share ``target`` of the perturbed training images misclassified: raise the strength
    while it is less, lower it while it is more.

    Args:
        target: share of misclassified images to keep, in [0, 1].
        rate: factor on the difference between the target and the misclassified share, which is
            added to the strength at each update; above 0 to 1.
        low: strength at the beginning, and the lowest one, in [0, 1].

    Raises:
        ValueError: a value out of range.

    Example:
        A quarter of the images is misclassified, 0.15 less than the target:

        >>> now = Progress(step=0, total_steps=100, epoch=0, total_epochs=10)
        >>> right = torch.tensor([True, True, True, False])
        >>> batch = Feedback(
        ...     indices=torch.arange(4), correct=right, strength=torch.zeros(4),
        ...     progress=now, chance=0.1,
        ... )
        >>> schedule = Fooling(target=0.4, rate=0.2)
        >>> state = schedule.after_batch(schedule.start(num_train=4), batch)
        >>> round(schedule(now, state), 2)
        0.03
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
class SelfPaced(Adaptive):
    """Raise the strength while the model learns at the current one, and hold it while it does not.

    The model learns if its accuracy on the perturbed training images, averaged over the last
    ``window`` of training, is at least chance ** (1 - level), where chance is the share of the most
    frequent class. On this logarithmic scale 0 is chance and 1 is all correct: with ten balanced
    classes, 0.15 is an accuracy of 0.141. After the first updates, the average is over enough
    images for chance to classify about ten correctly, if the window has fewer.

    The more frequent the class, the nearer the level is to chance: 0.5 becomes 0.555, 0.9 becomes
    0.914. Where a class has half of the images, luck passes for learning in trainings of a few
    hundred updates; there, raise ``level`` or ``window``. The images must come in random order: in
    batches of one class, a network that predicts the class of the last batch seems to learn.

    Curriculum adversarial training (Cai et al. 2018) waits for a fixed accuracy, as `gated` does,
    which a hard task never reaches. Here a little learning is enough: a stronger attack is learned
    too once there is something to build on, and time at full strength is what robustness needs.

    Args:
        level: least accuracy at which the strength rises, on the scale above, in [0, 1].
        rise: fraction of training, above 0 to 1, in which the strength would rise from 0 to 1 if
            the model learned throughout.
        window: fraction of training, above 0 to 1, over which the accuracy is averaged; older
            updates count exponentially less.
        latest: fraction of training, in [0, 1], after which the strength rises in any case.

    Raises:
        ValueError: a value out of range.

    Example:
        The strength rises after each update in which enough images were correct:

        >>> schedule = SelfPaced(level=0.3, rise=0.5, window=0.1)
        >>> state = schedule.start(num_train=100)
        >>> for step, right in enumerate([10, 30, 50, 10]):
        ...     now = Progress(step=step, total_steps=10, epoch=0, total_epochs=1)
        ...     batch = Feedback(
        ...         indices=torch.arange(100), correct=torch.arange(100) < right,
        ...         strength=torch.zeros(100), progress=now, chance=0.1,
        ...     )
        ...     state = schedule.after_batch(state, batch)
        ...     print(f"{schedule(now, state):.1f}")
        0.0
        0.2
        0.4
        0.4
    """

    level: float = _share(0.15)
    rise: float = _step(0.05)
    window: float = _step(0.01)
    latest: float = _share(0.4)

    def start(self, num_train: int) -> ScheduleState:
        return {
            "strength": torch.tensor(0.0),
            "accuracy": torch.tensor(0.0),  # weighted mean of the batches so far
            "weight": torch.tensor(0.0),  # their total weight, below 1 at first
        }

    def after_batch(self, state: ScheduleState, feedback: Feedback) -> ScheduleState:
        correct_N, chance = feedback.correct, feedback.chance
        update = 1 / feedback.progress.total_steps
        newest = min(1.0, update / self.window, len(correct_N) * chance / RIGHT_BY_CHANCE)
        accuracy = torch.lerp(state["accuracy"], correct_N.float().mean(), newest)
        weight = state["weight"] + newest * (1 - state["weight"])
        learns = accuracy >= chance ** (1 - self.level) * weight
        is_late = feedback.progress.fraction >= self.latest
        grown = state["strength"] + update / self.rise * (learns | is_late)
        return {"strength": grown.clamp(max=1), "accuracy": accuracy, "weight": weight}


@attrs.frozen(kw_only=True)
class Plateau(Adaptive):
    """Raise the strength by ``step`` after ``patience`` epochs in which a validation accuracy has
    not exceeded its best value; the best value is then reset.

    Args:
        on: ``clean`` accuracy, or ``joint``, under the curriculum's threat at full strength.
        step: increase of the strength, above 0 to 1.
        patience: number of epochs, 1 to 1e9.
        low: strength at the beginning, in [0, 1].

    Raises:
        ValueError: a value out of range.

    Example:
        The accuracy stops rising at the third epoch:

        >>> now = Progress(step=0, total_steps=100, epoch=0, total_epochs=10)
        >>> schedule = Plateau(on="clean", step=0.25, patience=1, low=0.25)
        >>> state = schedule.start(num_train=4)
        >>> for accuracy in (0.5, 0.6, 0.6):
        ...     state = schedule.after_epoch(state, {"clean": accuracy, "joint": 0.0})
        ...     print(schedule(now, state))
        0.25
        0.25
        0.5
    """

    on: Literal["clean", "joint"] = "joint"
    step: float = _step(0.25)
    patience: int = attrs.field(default=1, validator=valid_count)
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
class PerImage(Adaptive):
    """Give each training image its own strength: raise it by ``up`` if the perturbed image was
    classified correctly, and lower it by ``down`` if not.

    Instance-adaptive training (Balaji et al. 2019) sets the radius of each image in this way.

    Args:
        up: increase if correct, above 0 to 1.
        down: decrease if misclassified, above 0 to 1.
        low: strength at the beginning, and the lowest one, in [0, 1].

    Raises:
        ValueError: a value out of range.

    Example:
        >>> now = Progress(step=0, total_steps=100, epoch=0, total_epochs=10)
        >>> right = torch.tensor([True, True, True, False])
        >>> batch = Feedback(
        ...     indices=torch.arange(4), correct=right, strength=torch.zeros(4),
        ...     progress=now, chance=0.1,
        ... )
        >>> schedule = PerImage(up=0.3, down=0.1, low=0.2)
        >>> state = schedule.after_batch(schedule.start(num_train=5), batch)
        >>> schedule(now, state)
        tensor([0.5000, 0.5000, 0.5000, 0.2000, 0.2000])
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
