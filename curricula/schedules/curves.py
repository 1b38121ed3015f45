"""Schedules without state: strength as a curve over training.

Every curve maps t, the elapsed share of the ramp, from 0 to 1, and rises from 0 to 1. A `Ramp`
lets it begin at ``start`` and end at the fraction ``until`` of training. Needs no torch.
"""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import attrs
from attrs.validators import and_, ge, gt, le

if TYPE_CHECKING:  # it imports torch, and schedules are checked before
    from curricula.interfaces import Progress, ScheduleState

MAX_DENOMINATOR = 1_000_000  # of a fraction of training, as people write it

valid_share = and_(ge(0.0), le(1.0))
valid_positive_share = and_(gt(0.0), le(1.0))


def _checked(name: str, value: float, *, positive: bool = False) -> float:
    """Return a number after checking that it is in [0, 1].

    Raises:
        ValueError: it is not in [0, 1], or with ``positive`` not in (0, 1].
    """
    if not (0 < value <= 1 if positive else 0 <= value <= 1):
        raise ValueError(f"{name} must lie {'above' if positive else 'from'} 0 to 1, not {value:g}")
    return value


@attrs.frozen(kw_only=True)
class Ramp:
    """Follow ``start + (1 - start) * curve(t)`` up to the fraction ``until`` of training, then stay
    at 1."""

    curve: Callable[[float], float]
    start: float = attrs.field(validator=valid_share)
    until: float = attrs.field(validator=valid_positive_share)

    def __call__(self, progress: "Progress", state: "ScheduleState") -> float:
        t = progress.fraction / self.until
        return 1.0 if t >= 1 else self.start + (1 - self.start) * self.curve(t)


@attrs.frozen(kw_only=True)
class Constant:
    """Keep the same strength throughout training."""

    value: float = attrs.field(validator=valid_share)

    def __call__(self, progress: "Progress", state: "ScheduleState") -> float:
        return self.value


@attrs.frozen(kw_only=True)
class PiecewiseConstant:
    """Keep the strength constant in each of several stages of training.

    Args:
        stages: (fraction of training at which the stage begins, value), both in [0, 1].
    """

    stages: tuple[tuple[float, float], ...] = attrs.field()

    @stages.validator
    def _check(self, attribute: object, stages: tuple[tuple[float, float], ...]) -> None:
        for begins, value in stages:
            _checked("a stage's beginning", begins)
            _checked("a stage's value", value)
        if not stages or stages[0][0] != 0:
            raise ValueError("the first stage must begin at 0, for example step(0:0.5, 0.4:1)")
        if any(a[0] >= b[0] for a, b in itertools.pairwise(stages)):
            raise ValueError("each stage must begin after the one before it")

    def __call__(self, progress: "Progress", state: "ScheduleState") -> float:
        return next(value for begins, value in reversed(self.stages) if progress.fraction >= begins)


def constant(value: float = 1.0) -> Constant:
    """Keep the same strength throughout training.

    Args:
        value: the strength, in [0, 1].

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(constant(0.5)(moment, {}), 2) for moment in moments]
        [0.5, 0.5, 0.5, 0.5]
    """
    return Constant(value=value)


def linear(start: float = 0.0, until: float = 0.4) -> Ramp:
    """Raise the strength in a straight line, then keep it at 1.

    Args:
        start: strength at the beginning, in [0, 1].
        until: fraction of training, in (0, 1], at which the strength reaches 1.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(linear(start=0.2, until=0.5)(moment, {}), 2) for moment in moments]
        [0.2, 0.6, 1.0, 1.0]
    """
    return Ramp(curve=lambda t: t, start=start, until=until)


def cosine(start: float = 0.0, until: float = 0.4) -> Ramp:
    """Raise the strength by half a cosine wave, (1 - cos(pi t)) / 2, which is flat at both ends.

    Args:
        start: strength at the beginning, in [0, 1].
        until: fraction of training, in (0, 1], at which the strength reaches 1.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(cosine(until=1)(moment, {}), 2) for moment in moments]
        [0.0, 0.15, 0.5, 0.85]
    """
    return Ramp(curve=lambda t: (1 - math.cos(math.pi * t)) / 2, start=start, until=until)


def exponential(start: float = 0.0, until: float = 0.4, rate: float = 5.0) -> Ramp:
    """Raise the strength fast at first, then slowly, by (1 - exp(-rate t)) / (1 - exp(-rate)).

    Args:
        start: strength at the beginning, in [0, 1].
        until: fraction of training, in (0, 1], at which the strength reaches 1.
        rate: decay rate of the slope over the ramp, above 0; larger is faster at first.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(exponential(until=1)(moment, {}), 2) for moment in moments]
        [0.0, 0.72, 0.92, 0.98]
    """
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be above 0, not {rate:g}")
    return Ramp(curve=lambda t: math.expm1(-rate * t) / math.expm1(-rate), start=start, until=until)


def root(start: float = 0.0, until: float = 0.4, power: float = 2.0) -> Ramp:
    """Raise the strength as a root, ((1 - start ** power) t + start ** power) ** (1 / power), the
    competence of Platanios et al. 2019.

    Args:
        start: strength at the beginning, in [0, 1].
        until: fraction of training, in (0, 1], at which the strength reaches 1.
        power: degree of the root, from 1 to 100; 2 is their square root, 1 is linear.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(root(until=1)(moment, {}), 2) for moment in moments]
        [0.0, 0.5, 0.71, 0.87]
    """
    if not 1 <= power <= 100:
        raise ValueError(f"power must lie from 1 to 100, not {power:g}")
    # Ramp checks start; until then a value out of range must not fail here.
    low = min(max(start, 0.0), 1.0) ** power

    def curve(t: float) -> float:
        competence: float = ((1 - low) * t + low) ** (1 / power)
        return (competence - start) / (1 - start) if start < 1 else 1.0

    return Ramp(curve=curve, start=start, until=until)


def sigmoid(start: float = 0.0, until: float = 0.4, steepness: float = 10.0) -> Ramp:
    """Raise the strength by the logistic curve about the middle of the ramp, stretched to begin at
    0 and end at 1.

    Args:
        start: strength at the beginning, in [0, 1].
        until: fraction of training, in (0, 1], at which the strength reaches 1.
        steepness: slope of the logistic function over the ramp, from 0.001 to 500.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(sigmoid(until=1)(moment, {}), 2) for moment in moments]
        [0.0, 0.07, 0.5, 0.93]
    """
    if not 0.001 <= steepness <= 500:
        raise ValueError(f"steepness must lie from 0.001 to 500, not {steepness:g}")

    def logistic(t: float) -> float:
        return 1 / (1 + math.exp(-steepness * (t - 0.5)))

    low, high = logistic(0.0), logistic(1.0)
    return Ramp(curve=lambda t: (logistic(t) - low) / (high - low), start=start, until=until)


def step(
    *stages: tuple[float, float],
    start: float | None = None,
    until: float | None = None,
    count: int | None = None,
) -> PiecewiseConstant:
    """Raise the strength in stages: ``step(0:2/3, 0.62:5/6, 0.74:1)`` lists them, ``step(count=4)``
    makes equal ones.

    Args:
        stages: (fraction of training at which the stage begins, its strength in [0, 1]), the first
            at 0.
        start: without stages: strength of the first stage, in [0, 1]; by default 0.
        until: without stages: fraction of training, in (0, 1], at which strength 1 begins; by
            default 0.4.
        count: without stages: number of stages before strength 1, from 1 to 1000; by default 4.

    Raises:
        ValueError: a value out of range; stages that do not begin at 0 or whose beginnings do not
            increase; stages together with one of the others.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(step((0, 0.5), (0.5, 1))(moment, {}), 2) for moment in moments]
        [0.5, 0.5, 1, 1]
    """
    if stages:
        if (start, until, count) != (None, None, None):
            raise ValueError(
                "start, until and count are for a step without stages; give one or the other"
            )
        return PiecewiseConstant(stages=stages)
    start = _checked("start", 0.0 if start is None else start)
    until = _checked("until", 0.4 if until is None else until, positive=True)
    count = 4 if count is None else count
    if not 1 <= count <= 1000:
        raise ValueError(f"count must lie from 1 to 1000, not {count}")
    # A product of floats may exceed the fraction of training that it means; the stage would begin
    # an update late.
    end = _as_written(until)
    return PiecewiseConstant(
        stages=tuple(
            (float(end * i / count), start + (1 - start) * i / count) for i in range(count + 1)
        )
    )


def _as_written(value: float) -> Fraction:
    """Return the decimal or fraction that a float was written as, such as 3/10 for 0.3.

    >>> _as_written(0.3), _as_written(1 / 3)
    (Fraction(3, 10), Fraction(1, 3))
    """
    exact = Fraction(value)
    simple = exact.limit_denominator(MAX_DENOMINATOR)
    return simple if float(simple) == value else exact
