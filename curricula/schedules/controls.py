"""Control schedules, to compare a curriculum with: hard to easy, and at random. Needs no torch."""

import random as stdlib_random
from typing import TYPE_CHECKING, Literal

import attrs
from attrs.validators import and_, ge, le

from curricula.schedules.curves import Ramp, linear, valid_share

if TYPE_CHECKING:  # it imports torch, and schedules are checked before
    from curricula.interfaces import Progress, ScheduleState


MAX_SEED = 2**62  # largest seed, as of a training


@attrs.frozen(kw_only=True)
class ReversedRamp:
    """Follow a ramp backwards over training: from hard to easy."""

    ramp: Ramp

    @property
    def start(self) -> float:
        return self.ramp.start

    @property
    def until(self) -> float:
        return self.ramp.until

    def __call__(self, progress: "Progress", state: "ScheduleState") -> float:
        total = progress.total_steps
        mirrored = attrs.evolve(progress, step=total - 1 - progress.step)
        return self.ramp(mirrored, state)


def anti(start: float = 0.0, until: float = 0.4) -> ReversedRamp:
    """Keep the strength at 1, then lower it to ``start`` in a straight line over the last fraction
    ``until`` of training: `linear` reversed.

    Args:
        start: strength at the end, in [0, 1].
        until: fraction of training, in (0, 1], in which the strength decreases.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(anti(until=0.5)(moment, {}), 2) for moment in moments]
        [1.0, 1.0, 0.5, 0.0]
    """
    return ReversedRamp(ramp=linear(start=start, until=until))


@attrs.frozen(kw_only=True)
class Random:
    """Draw the strength uniformly from [low, high], again for each epoch or update.

    A draw depends only on the seed and the number of the epoch or update.

    Args:
        low: lowest strength, in [0, 1].
        high: highest strength, in [low, 1].
        each: how long a draw lasts: one ``epoch`` or one ``update``.
        seed: seed of the draws, from 0 to 2**62, independent of the run's seed. Schedules of equal
            seeds draw the same.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(Random(each="update")(moment, {}), 2) for moment in moments]
        [0.35, 0.14, 0.18, 0.75]
    """

    low: float = attrs.field(default=0.0, validator=valid_share)
    high: float = attrs.field(default=1.0, validator=valid_share)
    each: Literal["epoch", "update"] = "epoch"
    seed: int = attrs.field(default=0, validator=and_(ge(0), le(MAX_SEED)))

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must be at most high, not {self.low:g} and {self.high:g}")

    def __call__(self, progress: "Progress", state: "ScheduleState") -> float:
        number = progress.epoch if self.each == "epoch" else progress.step
        return stdlib_random.Random(f"{self.seed} {number}").uniform(self.low, self.high)
