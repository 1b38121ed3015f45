"""Draw the Pareto frontier of two accuracies."""

from matplotlib.figure import Figure

from curricula.reporting.figures import (
    DASHES,
    PALETTE,
    PIXELS_PER_INCH,
    as_label,
    height_with_legend,
    style_axes,
)
from curricula.sweeps.comparison import Comparison, Row

MARKERS = "osD^vP*X<>hp"
MIN_LIMIT = -2.0  # %, lower limit of an axis: bars at 0 stay visible above its line
MIN_SPAN = 5.0  # %, smallest range of an axis


def draw_frontier(compared: Comparison) -> Figure:
    """Draw each row at its two mean accuracies in %, the frontier as a line, and the area that it
    dominates in grey.

    Bars show the standard deviation over seeds, or the 95 % interval of a single seed.
    """
    x, y = compared.axes
    height = height_with_legend(4.6, len(compared.rows))
    figure = Figure(figsize=(7, height), dpi=PIXELS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for number, row in enumerate(compared.rows):
        color = PALETTE[number % len(PALETTE)]
        at = 100 * row.mean(x), 100 * row.mean(y)
        axes.errorbar(
            *at, xerr=_spread(row, x), yerr=_spread(row, y), fmt="none", ecolor=color, capsize=3,
            elinewidth=1,
        )  # fmt: skip
        axes.plot(
            *at, label=as_label(row.label), marker=MARKERS[number % len(MARKERS)], linestyle="none",
            markersize=8, color=color, clip_on=False,
        )  # fmt: skip
    frontier = sorted(
        compared.point(row)
        for row, on in zip(compared.rows, compared.on_frontier, strict=True)
        if on
    )
    left, right = _limits(*axes.get_xlim())
    bottom, top = _limits(*axes.get_ylim())
    if frontier:
        corners = [(left, 100 * frontier[0][1])]
        for (at_x, at_y), (_, next_y) in zip(frontier, [*frontier[1:], (0.0, 0.0)], strict=True):
            corners += [(100 * at_x, 100 * at_y), (100 * at_x, 100 * next_y)]
        corners[-1] = (corners[-1][0], bottom)
        across, up = zip(*corners, strict=True)
        axes.plot(across, up, color="#888888", linewidth=1, linestyle=DASHES[1], zorder=0)
        axes.fill_between(across, up, bottom, color="#f2f2f2", zorder=-1, linewidth=0)
    axes.set(xlabel=as_label(f"{x} accuracy, %"), ylabel=as_label(f"{y} accuracy, %"))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    style_axes(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _limits(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis in %, given the limits that its data need."""
    low = max(min(low, (low + high - MIN_SPAN) / 2), MIN_LIMIT)
    return low, max(high, low + MIN_SPAN)


def _spread(row: Row, threat: str) -> list[list[float]]:
    """Return the lengths of the bar below and above the mean, in %."""
    middle, deviation = row.mean(threat), row.deviation(threat)
    if deviation is not None:
        return [[100 * deviation], [100 * deviation]]
    low, high = row.interval(threat)
    return [[100 * (middle - low)], [100 * (high - middle)]]
