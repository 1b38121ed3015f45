"""Decide whether to compile a training's networks: only if the training is long enough."""

import warnings
from collections.abc import Generator
from contextlib import closing
from statistics import median
from typing import Literal

import attrs
from torch import Tensor

from curricula.data.dataset import Split, batches
from curricula.interfaces import Progress
from curricula.runtime.processes import largest
from curricula.runtime.timing import seconds
from curricula.training.plan import Plan
from curricula.training.step import Networks, TrainingState, start, update

COMPILE_SECONDS = 60.0  # rough cost of compiling both networks, before it is measured
MAX_TRIAL_SHARE = 0.02  # share of the training's time spent on trying the compiler
MAX_RELATIVE_TIME = 0.97  # compiled over uncompiled time of an update, to choose the compiler
NUM_UPDATES = 3  # updates timed; the median counts


def decide_compile(plan: Plan) -> tuple[Plan, str]:
    """Return the plan with its ``compile`` set to ``on`` or ``off``, and a line that says why.

    For ``auto``, an update at full strength is timed on weights that are then thrown away. If
    trying the compiler would take more than 2 % of the training, it is off. Otherwise both are
    timed, and the faster is chosen. torch's global random state advances.

    Args:
        plan: any plan; if it says ``on`` or ``off``, nothing is timed.
    """
    if plan.config.compile != "auto":
        return plan, f"compile: {plan.config.compile}, as configured"
    with closing(TrialUpdates(plan)) as trial:
        return _decide(plan, trial)


def _decide(plan: Plan, trial: "TrialUpdates") -> tuple[Plan, str]:
    """Return the plan with ``compile`` on or off, and a line that says why, after timing some
    updates."""
    updates = plan.total_steps
    eager = trial.seconds()
    if MAX_TRIAL_SHARE * eager * updates < COMPILE_SECONDS:
        return _with_compile(plan, "off"), (
            f"compile: off; to try torch.compile takes about {_duration(COMPILE_SECONDS)}, at most "
            f"{100 * MAX_TRIAL_SHARE:g} % of a training is spent on that, and this one takes about "
            f"{_duration(eager * updates)}"
        )
    eager = median(trial.seconds() for _ in range(NUM_UPDATES))
    compiled_plan = _with_compile(plan, "on")
    with closing(TrialUpdates(compiled_plan)) as compiled_trial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the returned line says it
        first = compiled_trial.seconds()
        compiled = median(compiled_trial.seconds() for _ in range(NUM_UPDATES))
    (failed,) = largest(compiled_trial.networks.compile_failed)
    faster = not failed and compiled < MAX_RELATIVE_TIME * eager
    chosen: Literal["on", "off"] = "on" if faster else "off"
    measured = "failed" if failed else f"{compiled:.3g} s"
    return _with_compile(plan, chosen), (
        f"compile: {chosen}, because an update takes {eager:.3g} s, and compiled {measured}; to "
        f"compile took {_duration(first)}, and {updates:,} updates follow"
    )


class TrialUpdates:
    """Run updates of a plan at full strength, on new weights that nothing else uses.

    Attributes:
        plan: the plan.
        state: the state that the updates change.
        networks: the networks that they run.
        batches: an endless stream of training batches.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state: TrainingState = start(plan)
        self.networks = Networks.of(plan, self.state.model)
        self.batches = self._batches()

    def _batches(self) -> Generator[tuple[Tensor, Split], None, None]:
        while True:
            yield from batches(
                self.plan.data.train,
                self.plan.config.batch_size,
                generator=self.state.generators["order"],
                rows=self.plan.rows,
            )

    def update(self) -> None:
        """Run one update at full strength, on the next batch."""
        total, epochs = 10**6, self.plan.config.epochs
        last = Progress(step=total - 1, total_steps=total, epoch=epochs - 1, total_epochs=epochs)
        update(self.plan, self.state, self.networks, *next(self.batches), last)

    def seconds(self) -> float:
        """Return the wall time of one update, in seconds; of several processes, the longest."""
        return largest(seconds(self.update, self.plan.device))[0]

    def close(self) -> None:
        """End the stream of batches and its reader processes.

        The garbage collector would end them at any moment of the training, which would then wait.
        """
        self.batches.close()


def _with_compile(plan: Plan, compile_: Literal["on", "off"]) -> Plan:
    return attrs.evolve(plan, config=attrs.evolve(plan.config, compile=compile_))


def _duration(seconds_: float) -> str:
    """Return a time in seconds, minutes or hours, as text."""
    if seconds_ < 90:
        return f"{seconds_:.2g} s"
    minutes = seconds_ / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
