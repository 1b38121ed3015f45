"""Learning-rate schedules: from progress to a multiple of ``lr``, in [0, 1].

``constant`` and ``step(...)`` are the curriculum's own schedules; those below end in a fall.
"""

import math
from collections.abc import Callable

from curricula.expressions import factories
from curricula.interfaces import Progress
from curricula.training.checks import check_lr_schedule

LearningRate = Callable[[Progress], float]

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1e-4


def _falling(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2


def cosine() -> LearningRate:
    """From 1 to 0 along half a cosine wave (Loshchilov and Hutter 2017, a single cycle)."""
    return lambda progress: _falling(progress.fraction)


def one_cycle(warmup: float = 0.3) -> LearningRate:
    """Up from 1/25 to 1, then down to 1e-4, both along half a cosine wave (Smith and Topin 2018).

    Args:
        warmup: fraction of training that goes up, above 0 and below 1.

    Raises:
        ValueError: a warmup out of range.
    """
    if not 0 < warmup < 1:
        raise ValueError(f"warmup must be above 0 and below 1, not {warmup:g}")

    def multiple(progress: Progress) -> float:
        t = progress.fraction
        if t < warmup:
            return 1 + (ONE_CYCLE_START - 1) * _falling(t / warmup)
        return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * _falling((t - warmup) / (1 - warmup))

    return multiple


FACTORIES = {"cosine": cosine, "one-cycle": one_cycle}


def parse_learning_rate(text: str) -> factories.Built:
    """A learning-rate schedule from its expression, such as ``one-cycle(warmup=0.3)``: the
    function, and the call that states every default.

    Raises:
        UserError: an unknown name or argument, a value out of range.
    """
    call = check_lr_schedule(text)
    if call.name in FACTORIES:
        return factories.call_factory(FACTORIES[call.name], "lr_schedule", call)
    schedule = factories.build("schedule", call)
    return factories.Built(value=lambda p: float(schedule.value(p, {})), call=schedule.call)
