"""Draw schedules as curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from curricula.errors import UserError
from curricula.expressions import factories
from curricula.expressions.syntax import parse_call
from curricula.interfaces import AdaptiveSchedule, Progress, Schedule
from curricula.reporting.figures import (
    DASHES,
    PALETTE,
    PIXELS_PER_INCH,
    folded,
    plain_text,
    style_axes,
)
from curricula.reporting.inline import InlineFigure

# Samples and epochs of a curve; samples lie at thirds, quarters and thousandths.
NUM_SAMPLES, NUM_EPOCHS = 3000, 100


@plain_text()
def schedules_figure(schedules: Mapping[str, Schedule]) -> Figure:
    """Return a figure with a curve for each schedule: strength over the share of training.

    Args:
        schedules: schedules by their name in the legend.

    Raises:
        UserError: a schedule that depends on more than the share of training, or leaves [0, 1].
    """
    curves = {name: curve(schedule, name) for name, schedule in schedules.items()}
    names = ["\n".join(folded(name, 6.2, 9)) for name in curves]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = InlineFigure(
        figsize=(7, 3.7 + 0.19 * lines), dpi=PIXELS_PER_INCH, layout="constrained"
    )
    axes = figure.add_subplot()
    for number, (name, (share, strength)) in enumerate(zip(names, curves.values(), strict=True)):
        # Each value holds until the next sample: steps stay sharp, curves stay smooth.
        axes.plot(
            share, strength, drawstyle="steps-post", label=name, linewidth=1.8,
            color=PALETTE[number % len(PALETTE)], linestyle=DASHES[number % len(DASHES)],
        )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.05), xlabel="share of training", ylabel="strength")
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    style_axes(axes)
    figure.legend(loc="outside lower left", frameon=False, fontsize=9, handlelength=3.2)
    return figure


def curve(schedule: Schedule, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shares of training from 0 to 1 and the schedule's strength at each, both (K,); the
    last strength is repeated.

    Raises:
        UserError: the strength depends on more than the share of training, or leaves [0, 1].
    """
    if isinstance(schedule, AdaptiveSchedule):
        raise UserError(
            f"{name} adapts to the training, so it has no curve by itself; its strengths are in "
            "the metrics.jsonl of a run"
        )
    strengths = []
    for step in range(NUM_SAMPLES):
        epoch = step * NUM_EPOCHS // NUM_SAMPLES
        progress = Progress(
            step=step, total_steps=NUM_SAMPLES, epoch=epoch, total_epochs=NUM_EPOCHS
        )
        strength = schedule(progress, {})
        if isinstance(strength, Tensor) and strength.numel() != 1:
            raise UserError(f"{name} gives each image its own strength: it has no single curve")
        value = float(strength)
        if not 0 <= value <= 1:
            raise UserError(f"{name} gave a strength of {value:g}; it must lie from 0 to 1")
        strengths.append(value)
    return np.arange(NUM_SAMPLES + 1) / NUM_SAMPLES, np.array([*strengths, strengths[-1]])


def parse_schedules(texts: Sequence[str]) -> dict[str, Schedule]:
    """Return the schedules that the texts describe, by their expressions with every default stated.

    Raises:
        UserError: an unknown name, a wrong argument.
    """
    built = [factories.build("schedule", parse_call(text)) for text in texts]
    return {str(each.call): each.value for each in built}
