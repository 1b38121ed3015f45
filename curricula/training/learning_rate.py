"""Learning-rate schedules: from progress to a multiple of ``lr``, in [0, 1].

``constant`` and ``step(...)`` are schedules of curricula; those defined here end in a decay. Needs
no torch.
"""

import math
from typing import TYPE_CHECKING, Protocol

from curricula.errors import UserError, message_of
from curricula.expressions import factories
from curricula.expressions.syntax import Pair, parse_call

if TYPE_CHECKING:
    from curricula.interfaces import Progress


class LearningRate(Protocol):
    """A learning-rate schedule: from progress to a multiple of ``lr``, in [0, 1]."""

    def __call__(self, progress: "Progress", /) -> float:
        """Return the multiple of ``lr`` at this progress, in [0, 1]."""
        ...


ONE_CYCLE_START = 1 / 25  # multiple of lr
ONE_CYCLE_END = 1e-4  # multiple of lr


def _half_cosine(t: float) -> float:
    """Return a value that decreases from 1 at t = 0 to 0 at t = 1 along half a cosine wave."""
    return (1 + math.cos(math.pi * t)) / 2


def cosine() -> LearningRate:
    """Return a schedule that decreases from 1 to 0 along half a cosine wave (Loshchilov and Hutter
    2017, one cycle).

    >>> round(cosine()(Progress(step=50, total_steps=100, epoch=0, total_epochs=1)), 3)
    0.5
    """
    return lambda progress: _half_cosine(progress.fraction)


def one_cycle(warmup: float = 0.3) -> LearningRate:
    """Return a schedule that rises from 1/25 to 1, then decreases to 1e-4, each along half a cosine
    wave (Smith and Topin 2018).

    >>> progress = Progress(step=30, total_steps=100, epoch=0, total_epochs=1)
    >>> one_cycle(warmup=0.3)(progress)
    1.0

    Args:
        warmup: fraction of training in which the rate rises, above 0 and below 1.

    Raises:
        ValueError: ``warmup`` is out of range.
    """
    if not 0 < warmup < 1:
        raise ValueError(f"warmup must be above 0 and below 1, not {warmup:g}")

    def multiple(progress: "Progress") -> float:
        t = progress.fraction
        if t < warmup:
            return 1 + (ONE_CYCLE_START - 1) * _half_cosine(t / warmup)
        return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * _half_cosine((t - warmup) / (1 - warmup))

    return multiple


FACTORIES = {"cosine": cosine, "one-cycle": one_cycle}
SCHEDULES = ("constant", "step")  # the schedules of curricula that are learning rates as well


def check_learning_rate(built: factories.Built, begin: "Progress") -> None:
    """Check that a learning-rate schedule returns a finite number, 0 or more, at the begin of a
    training.

    Raises:
        UserError: it fails, or returns something else.
    """
    try:
        value = float(built.value(begin))
    except Exception as error:  # of third-party code
        raise UserError(
            f"lr_schedule {built.call} failed ({message_of(error)}): it must take the progress and "
            "return a multiple of lr"
        ) from error
    if not 0 <= value < math.inf:
        raise UserError(
            f"lr_schedule {built.call} gave {value:g}: it must be a multiple of lr, 0 or more"
        )


def parse_learning_rate(text: str) -> factories.Built:
    """Return the learning-rate schedule that an expression such as ``one-cycle(warmup=0.3)``
    describes, and the expression with every default stated.

    Raises:
        UserError: an unknown name or argument, a value out of range, a ``step`` without stages.
    """
    call = parse_call(text)
    if call.name in FACTORIES:
        return factories.call_factory(FACTORIES[call.name], "lr_schedule", call)
    if call.name not in SCHEDULES:
        known = ", ".join((*FACTORIES, *SCHEDULES))
        raise UserError(f"unknown lr_schedule {call.name!r}; known: {known}")
    if call.name == "step" and not any(isinstance(a.value, Pair) for a in call.arguments):
        raise UserError("lr_schedule step needs its stages, for example step(0:1, 0.5:0.1)")
    schedule = factories.build("schedule", call)
    return factories.Built(value=lambda p: float(schedule.value(p, {})), call=schedule.call)
