"""Whether to compile a training's networks: when it is long enough to repay it."""

import warnings
from collections.abc import Iterator
from statistics import median
from typing import Literal

import attrs
from torch import Tensor

from curricula.data.dataset import Split, batches
from curricula.interfaces import Progress
from curricula.runtime.timing import seconds
from curricula.training.plan import Plan
from curricula.training.step import Networks, TrainingState, begin, update

TRIAL_SECONDS = 60.0
"""What compiling the attacked and the trained network takes, roughly, before it is known."""
SHARE = 0.02
"""Of a training's time that a trial of compilation may take."""
GAIN = 0.97
"""Of the time of an update that a compiled one may take, to be worth a dependence on a compiler."""
UPDATES = 3


def decide(plan: Plan) -> tuple[Plan, str]:
    """A plan whose ``compile`` is ``on`` or ``off``, and a line that says why.

    For ``auto`` an update at full strength is timed on weights that are then thrown away. If a
    trial of the compiler would take more than a fiftieth of the training, it is off. Otherwise
    both are timed, and the faster one stays. torch's global random state moves.

    Args:
        plan: any; where it says ``on`` or ``off``, nothing is measured.
    """
    if plan.config.compile != "auto":
        return plan, f"compile: {plan.config.compile}, as asked for"
    updates = plan.config.epochs * (len(plan.data.train) // plan.config.batch_size)
    trial = Trial(plan)
    plainly = trial.seconds()
    if SHARE * plainly * updates < TRIAL_SECONDS:
        return _decided(plan, "off"), (
            f"compile: off; training takes about {_duration(plainly * updates)}, "
            f"and compiling about {_duration(TRIAL_SECONDS)}"
        )
    plainly = median(trial.seconds() for _ in range(UPDATES))
    asked = Trial(_decided(plan, "on"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the line that is returned says it
        first = asked.seconds()
        compiled = median(asked.seconds() for _ in range(UPDATES))
    failed = asked.networks.failed
    chosen: Literal["on", "off"] = "on" if not failed and compiled < GAIN * plainly else "off"
    measured = "failed" if failed else f"{compiled:.3g} s"
    return _decided(plan, chosen), (
        f"compile: {chosen}; an update takes {plainly:.3g} s, compiled {measured} after "
        f"{_duration(first)}; {updates:,} updates are to come"
    )


class Trial:
    """Updates of a plan at full strength, on weights of its own.

    Attributes:
        state, networks: what it updates.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state: TrainingState = begin(plan)
        self.networks = Networks.of(plan, self.state.model)
        self.batches = self._batches()

    def _batches(self) -> Iterator[tuple[Tensor, Split]]:
        while True:
            yield from batches(
                self.plan.data.train,
                self.plan.config.batch_size,
                generator=self.state.generators["order"],
            )

    def update(self) -> None:
        """One update, on the next batch."""
        total, epochs = 10**6, self.plan.config.epochs
        last = Progress(step=total - 1, total_steps=total, epoch=epochs - 1, total_epochs=epochs)
        update(self.plan, self.state, self.networks, *next(self.batches), last)

    def seconds(self) -> float:
        """Wall time of one update."""
        return seconds(self.update, self.plan.device)


def _decided(plan: Plan, compile_: Literal["on", "off"]) -> Plan:
    return attrs.evolve(plan, config=attrs.evolve(plan.config, compile=compile_))


def _duration(seconds_: float) -> str:
    if seconds_ < 90:
        return f"{seconds_:.2g} s"
    minutes = seconds_ / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
