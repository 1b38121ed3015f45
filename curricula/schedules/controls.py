"""Schedules that a scientist compares a curriculum with: hard to easy, and at random."""

import random as stdlib_random
from typing import Literal

import attrs
from attrs.validators import and_, ge, le

from curricula.interfaces import Progress, ScheduleState
from curricula.schedules.curves import Ramp, linear


@attrs.frozen(kw_only=True)
class ReversedRamp:
    """A ramp read from the end of training to its beginning: hard to easy."""

    ramp: Ramp

    @property
    def start(self) -> float:
        return self.ramp.start

    @property
    def until(self) -> float:
        return self.ramp.until

    def __call__(self, progress: Progress, state: ScheduleState) -> float:
        total = progress.total_steps
        mirrored = attrs.evolve(progress, step=total - 1 - progress.step)
        return self.ramp(mirrored, state)


def anti(start: float = 0.0, until: float = 0.4) -> ReversedRamp:
    """`linear` backwards: at 1 first, and down to ``start`` over the last fraction ``until``.

    Args:
        start: strength at the end, in [0, 1].
        until: fraction of training, in (0, 1], that goes down.

    Raises:
        ValueError: a value out of range.
    """
    return ReversedRamp(ramp=linear(start=start, until=until))


@attrs.frozen(kw_only=True)
class Random:
    """`random`: uniform in [low, high], drawn anew for each epoch or update from (seed, number).

    Args:
        low: in [0, 1].
        high: in [low, 1].
        each: ``epoch`` or ``update``: how long a draw lasts.
        seed: 0 or more; not the run's, and schedules of one seed draw alike.

    Raises:
        ValueError: a value out of range.
    """

    low: float = attrs.field(default=0.0, validator=and_(ge(0.0), le(1.0)))
    high: float = attrs.field(default=1.0, validator=and_(ge(0.0), le(1.0)))
    each: Literal["epoch", "update"] = "epoch"
    seed: int = attrs.field(default=0, validator=ge(0))

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must be at most high, not {self.low:g} and {self.high:g}")

    def __call__(self, progress: Progress, state: ScheduleState) -> float:
        number = progress.epoch if self.each == "epoch" else progress.step
        return stdlib_random.Random(f"{self.seed} {number}").uniform(self.low, self.high)
