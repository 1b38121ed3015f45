"""The frontier of two accuracies as a figure."""

from matplotlib.figure import Figure

from curricula.reporting.figures import (
    DASHES,
    PALETTE,
    PIXELS_PER_INCH,
    beside_a_legend,
    named,
    style_axes,
)
from curricula.sweeps.comparison import Comparison, Row

MARKERS = "osD^vP*X<>hp"
LEAST = -2.0  # %, where an axis begins at the lowest: bars at 0 are seen above its line
SPAN = 5.0  # %, that an axis shows at the least


def draw_frontier(compared: Comparison) -> Figure:
    """Each row at its two mean accuracies in %, a bar for each standard deviation over seeds, or
    for the 95 % interval of one; the frontier as a line, and what it dominates shaded."""
    x, y = compared.axes
    height = beside_a_legend(4.6, len(compared.rows))
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
            *at, label=named(row.label), marker=MARKERS[number % len(MARKERS)], linestyle="none",
            markersize=8, color=color, clip_on=False,
        )  # fmt: skip
    front = sorted(
        compared.point(row)
        for row, on in zip(compared.rows, compared.on_frontier, strict=True)
        if on
    )
    left, right = _limits(*axes.get_xlim())
    bottom, top = _limits(*axes.get_ylim())
    if front:
        corners = [(left, 100 * front[0][1])]
        for (at_x, at_y), (_, next_y) in zip(front, [*front[1:], (0.0, 0.0)], strict=True):
            corners += [(100 * at_x, 100 * at_y), (100 * at_x, 100 * next_y)]
        corners[-1] = (corners[-1][0], bottom)
        across, up = zip(*corners, strict=True)
        axes.plot(across, up, color="#888888", linewidth=1, linestyle=DASHES[1], zorder=0)
        axes.fill_between(across, up, bottom, color="#f2f2f2", zorder=-1, linewidth=0)
    axes.set(xlabel=named(f"{x} accuracy, %"), ylabel=named(f"{y} accuracy, %"))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    style_axes(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _limits(low: float, high: float) -> tuple[float, float]:
    """Of an axis whose data ask for these, in %."""
    low = max(min(low, (low + high - SPAN) / 2), LEAST)
    return low, max(high, low + SPAN)


def _spread(row: Row, threat: str) -> list[list[float]]:
    """How far below and above its mean, in %."""
    middle, deviation = row.mean(threat), row.deviation(threat)
    if deviation is not None:
        return [[100 * deviation], [100 * deviation]]
    low, high = row.interval(threat)
    return [[100 * (middle - low)], [100 * (high - middle)]]
