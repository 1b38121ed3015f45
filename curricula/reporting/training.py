"""Draw a training: accuracies, loss, and the strengths of the curriculum."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from curricula.evaluation.names import CLEAN, JOINT
from curricula.reporting.figures import (
    DASHES,
    FAINT_TEXT,
    MAX_NAMED,
    PALETTE,
    PIXELS_PER_INCH,
    as_label,
    height_with_legend,
    plain_text,
    style_axes,
)
from curricula.reporting.inline import InlineFigure
from curricula.training.metrics import EpochMetrics

ACCURACIES: Mapping[str, Callable[[EpochMetrics], float]] = {
    "validation, clean": lambda line: line.validation[CLEAN],
    "validation, joint": lambda line: line.validation[JOINT],
    "training, perturbed": lambda line: line.train_accuracy,
}


@plain_text()
def training_figure(metrics: Sequence[EpochMetrics]) -> Figure:
    """Return a figure with accuracies in %, the loss and the strength of each link over the epochs.

    A vertical line marks the epoch that was kept.

    Args:
        metrics: lines of a run's ``metrics.jsonl``, one or more.
    """
    links = list(metrics[0].strength)
    heights = [2.4, 1.2, 1.2] if links else [2.4, 1.2]
    figure = InlineFigure(
        figsize=(4.4, 1 + sum(heights)), dpi=PIXELS_PER_INCH, layout="constrained"
    )
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    epochs = [line.epoch for line in metrics]
    for number, (name, read) in enumerate(ACCURACIES.items()):
        _curve(panels[0], epochs, [100 * read(line) for line in metrics], number, name)
    panels[0].set(ylabel="accuracy, %", ylim=(-3, 103))
    _curve(panels[1], epochs, [line.loss for line in metrics], 4, "loss")
    panels[1].set_ylabel("loss")
    top = max(line.loss for line in metrics)
    if top > 0:  # an objective may have a loss below 0
        panels[1].set_ylim(0, 1.08 * top)
    for number, link in enumerate(links):
        strengths = [line.strength[link] for line in metrics]
        _curve(panels[2], epochs, strengths, number, link)
    if links:
        panels[2].set(ylabel="strength", ylim=(-0.05, 1.05))
    kept = max(line.epoch for line in metrics if line.best)
    for axes in panels:
        axes.axvline(kept, color=FAINT_TEXT, linestyle=":", linewidth=1.2, zorder=1)
        style_axes(axes, small=True)
    for axes in (panels[0], *panels[2:]):
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8,
            borderaxespad=0,
        )  # fmt: skip
    panels[-1].set_xlabel(f"epoch (kept: {kept})")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@plain_text()
def learning_figure(curves: Mapping[str, Sequence[Sequence[EpochMetrics]]]) -> Figure:
    """Return a figure of joint validation accuracy in % over the share of training, as means over
    seeds, one curve for each row of a comparison.

    Args:
        curves: lines of ``metrics.jsonl`` of each run of a row, by the row's label.
    """
    figure = InlineFigure(
        figsize=(4.4, height_with_legend(3.4, len(curves))),
        dpi=PIXELS_PER_INCH,
        layout="constrained",
    )
    axes = figure.add_subplot()
    for number, (label, runs) in enumerate(curves.items()):
        joint = [[line.validation[JOINT] for line in metrics] for metrics in runs]
        means = [
            100 * mean(values) for values in zip(*joint, strict=False)
        ]  # while all seeds train
        longest = max(map(len, joint))
        shares = [(epoch + 1) / longest for epoch in range(len(means))]
        axes.plot(
            shares, means, label=as_label(label), color=PALETTE[number % len(PALETTE)],
            linestyle=DASHES[number // len(PALETTE) % len(DASHES)], linewidth=1.6, marker="o",
            markersize=3,
        )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(-3, 103), xlabel="share of training")
    axes.set_ylabel("joint validation accuracy, %")
    style_axes(axes)
    named = [items[:MAX_NAMED] for items in axes.get_legend_handles_labels()]
    figure.legend(*named, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    return figure


def _curve(
    axes: Axes, epochs: Sequence[int], values: Sequence[float], number: int, name: str
) -> None:
    axes.plot(
        epochs, values, label=as_label(name), color=PALETTE[number % len(PALETTE)],
        linestyle=DASHES[number % len(DASHES)],
        linewidth=1.6, marker="o", markersize=3,
    )  # fmt: skip
