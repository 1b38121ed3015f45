"""Learning-rate schedules: from progress to a multiple of ``lr``. Needs no torch."""

import bisect
import itertools
import math
from typing import TYPE_CHECKING, Protocol

from curricula.errors import UserError, message_of, shown
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.schedules.curves import Constant, PiecewiseConstant

if TYPE_CHECKING:
    from curricula.interfaces import Progress


class LearningRate(Protocol):
    """A learning-rate schedule: from progress to a multiple of ``lr``, 0 or more."""

    def __call__(self, progress: "Progress", /) -> float:
        """Return the multiple of ``lr`` at this progress, 0 or more."""
        ...


START = 1 / 25  # multiple of lr at the first update of a warm-up
ONE_CYCLE_END = 1e-4  # multiple of lr
MAX_CYCLES = 100  # cycles of a cosine schedule
MAX_MULT = 10.0  # times that a cycle is longer than the one before
ROUNDING = 1e-10  # share of training within which a restart is reached


def _half_cosine(t: float) -> float:
    """Return a value that decreases from 1 at t = 0 to 0 at t = 1 along half a cosine wave."""
    return (1 + math.cos(math.pi * t)) / 2


def _warming(warmup: float, after: LearningRate) -> LearningRate:
    """Return a schedule times a factor that rises in a straight line from 1/25 to 1 during the
    fraction ``warmup`` of training."""
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must lie from 0 to below 1, not {warmup:g}")

    def multiple(progress: "Progress") -> float:
        t = progress.fraction
        factor = START + (1 - START) * t / warmup if t < warmup else 1.0
        return factor * after(progress)

    return multiple


def constant(value: float = 1.0, warmup: float = 0.0) -> LearningRate:
    """Keep the rate the same throughout training.

    Args:
        value: multiple of lr, in [0, 1].
        warmup: fraction of training in which the rate rises in a straight line, from 1/25, from 0
            to below 1.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(constant(warmup=0.5)(moment), 2) for moment in moments]
        [0.04, 0.52, 1.0, 1.0]
    """
    same = Constant(value=value)
    return _warming(warmup, lambda progress: same(progress, {}))


def step(*stages: tuple[float, float], warmup: float = 0.0) -> LearningRate:
    """Keep the rate constant in each of several stages of training.

    Args:
        stages: fraction of training at which a stage begins, and the multiple of lr, both in
            [0, 1].
        warmup: fraction of training in which the rate rises in a straight line, from 1/25 of the
            stage's, from 0 to below 1.

    Raises:
        ValueError: there are no stages, or a value is out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [step((0, 1), (0.5, 0.1))(moment) for moment in moments]
        [1.0, 1.0, 0.1, 0.1]
    """
    if not stages:
        raise ValueError("it needs stages, for example step(0:1, 0.5:0.1)")
    staged = PiecewiseConstant(stages=stages)
    return _warming(warmup, lambda progress: staged(progress, {}))


def cosine(warmup: float = 0.0, cycles: int = 1, mult: float = 1.0) -> LearningRate:
    """Lower the rate from 1 to 0 along half a cosine wave, once or again after each warm restart
    (SGDR, Loshchilov and Hutter 2017, equation 5, with eta_min = 0).

    The cycles share the training after the warm-up.

    Args:
        warmup: fraction of training in which the rate rises in a straight line, from 1/25, from 0
            to below 1.
        cycles: number of cycles, 1 to 100; each begins at 1.
        mult: length of each cycle relative to the one before (T_mult of the paper), 1 to 10.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=6, epoch=0, total_epochs=1) for i in range(6)]
        >>> [round(cosine(cycles=2, mult=2)(moment), 2) for moment in moments]
        [1.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """
    if not 1 <= cycles <= MAX_CYCLES:
        raise ValueError(f"cycles must lie from 1 to {MAX_CYCLES}, not {shown(cycles)}")
    if not 1 <= mult <= MAX_MULT:
        raise ValueError(f"mult must lie from 1 to {MAX_MULT:g}, not {mult:g}")
    lengths = [mult**cycle for cycle in range(cycles)]
    ends = [end / sum(lengths) for end in itertools.accumulate(lengths)]

    def multiple(progress: "Progress") -> float:
        if progress.fraction < warmup:
            return 1.0
        t = (progress.fraction - warmup) / (1 - warmup)
        cycle = bisect.bisect_right(ends, t + ROUNDING, hi=cycles - 1)
        begin = ends[cycle - 1] if cycle else 0.0
        return _half_cosine(max(t - begin, 0.0) / (ends[cycle] - begin))

    return _warming(warmup, multiple)


def one_cycle(warmup: float = 0.3) -> LearningRate:
    """Raise the rate from 1/25 to 1, then lower it to 1e-4, each along half a cosine wave (Smith
    and Topin 2018).

    Args:
        warmup: fraction of training in which the rate rises, above 0 and below 1.

    Raises:
        ValueError: ``warmup`` is out of range.

    Example:
        >>> moments = [Progress(step=i, total_steps=4, epoch=0, total_epochs=1) for i in range(4)]
        >>> [round(one_cycle(warmup=0.5)(moment), 2) for moment in moments]
        [0.04, 0.52, 1.0, 0.5]
    """
    if not 0 < warmup < 1:
        raise ValueError(f"warmup must be above 0 and below 1, not {warmup:g}")

    def multiple(progress: "Progress") -> float:
        t = progress.fraction
        if t < warmup:
            return 1 + (START - 1) * _half_cosine(t / warmup)
        return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * _half_cosine((t - warmup) / (1 - warmup))

    return multiple


def parse_learning_rate(text: str) -> factories.Built:
    """Return the learning-rate schedule that an expression such as ``cosine(warmup=0.05)``
    describes, and the expression with every default stated.

    Raises:
        UserError: an unknown name or argument, or a value out of range.
    """
    return factories.build("lr_schedule", parse_call(text))


def checked(built: factories.Built) -> LearningRate:
    """Return a learning-rate schedule that raises a UserError where the given one fails, or returns
    anything but a finite number, 0 or more."""

    def multiple(progress: "Progress") -> float:
        try:
            value = float(built.value(progress))
        except Exception as error:  # of third-party code
            raise UserError(
                f"lr_schedule {built.call} failed ({message_of(error)}): it must take the progress "
                "and return a multiple of lr"
            ) from error
        if not 0 <= value < math.inf:
            raise UserError(
                f"lr_schedule {built.call} gave {value:g}: it must be a multiple of lr, 0 or more"
            )
        return value

    return multiple
