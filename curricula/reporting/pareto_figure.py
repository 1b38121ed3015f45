"""Draw the Pareto frontier of two accuracies."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from curricula.evaluation.pareto import Point
from curricula.reporting.figures import (
    DASHES,
    MAX_NAMED,
    PALETTE,
    PIXELS_PER_INCH,
    as_label,
    height_with_legend,
    plain_text,
    style_axes,
)
from curricula.reporting.inline import InlineFigure
from curricula.reporting.point_labels import label_points
from curricula.sweeps.comparison import Comparison, Row

MARKERS = "osD^vP*X<>hp"
MAX_BARS = 20  # rows that all have bars
MIN_LIMIT = -2.0  # %, lower limit of an axis: bars at 0 stay visible above its line
MIN_SPAN = 5.0  # %, smallest range of an axis


@plain_text()
def draw_frontier(compared: Comparison) -> Figure:
    """Return a figure with each row at its two mean accuracies in %, the Pareto frontier as a line,
    and the area that it dominates in grey.

    Bars show the standard deviation over seeds, or the 95 % interval of a single seed; with more
    than 20 rows, only those on the frontier have bars. Up to 60 rows are named beside their points,
    those on the frontier first and in bold; a legend names up to 60 rows whose points lie too close
    together. The trials of a search are named by their numbers.
    """
    x, y = compared.axes
    height = height_with_legend(4.6, len(compared.rows))
    figure = InlineFigure(figsize=(7, height), dpi=PIXELS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    with_bars = _with_bars(compared)
    for number, row in enumerate(compared.rows):
        color = PALETTE[number % len(PALETTE)]
        at = 100 * row.mean(x), 100 * row.mean(y)
        if with_bars[number]:
            axes.errorbar(
                *at, xerr=_spread(row, x), yerr=_spread(row, y), fmt="none", ecolor=color,
                capsize=3, elinewidth=1,
            )  # fmt: skip
        axes.plot(
            *at, label=as_label(row.name), marker=MARKERS[number % len(MARKERS)], linestyle="none",
            markersize=7, color=color, clip_on=False,
        )  # fmt: skip
    left, right = _limits(*axes.get_xlim())
    bottom, top = _limits(*axes.get_ylim())
    corners = frontier_corners(compared, left=left, bottom=bottom)
    edges = list(pairwise(corners))
    if corners:
        across, up = zip(*corners, strict=True)
        axes.plot(across, up, color="#888888", linewidth=1, linestyle=DASHES[1], zorder=0)
        axes.fill_between(across, up, bottom, color="#f2f2f2", zorder=-1, linewidth=0)
    axes.set(xlabel=as_label(f"{x} accuracy, %"), ylabel=as_label(f"{y} accuracy, %"))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    style_axes(axes)
    # The axes are smallest beside the legend of all rows: a name that is free then stays free.
    all_rows = _legend(figure, axes.get_legend_handles_labels())
    written = _name_rows(axes, compared, edges)
    all_rows.remove()
    rest = [
        [item for item, named in zip(items, written, strict=True) if not named]
        for items in axes.get_legend_handles_labels()
    ]
    if rest[0]:
        _legend(figure, rest)
    figure.set_figheight(height_with_legend(4.6, len(rest[0])))
    return figure


def frontier_corners(compared: Comparison, *, left: float, bottom: float) -> list[Point]:
    """Return the corners of the line of the Pareto frontier, in %, from left to right: from the
    left limit of the axes to the lower one. A comparison without rows has none.

    Args:
        compared: the rows.
        left: where the line begins, in %.
        bottom: where it ends, in %.
    """
    rows = zip(compared.rows, compared.on_frontier, strict=True)
    frontier = sorted(compared.point(row) for row, on in rows if on)
    if not frontier:
        return []
    corners = [(left, 100 * frontier[0][1])]
    for (at_x, at_y), (_, next_y) in zip(frontier, [*frontier[1:], (0.0, 0.0)], strict=True):
        corners += [(100 * at_x, 100 * at_y), (100 * at_x, 100 * next_y)]
    corners[-1] = (corners[-1][0], bottom)
    return corners


def _with_bars(compared: Comparison) -> list[bool]:
    """Return for each row whether it has bars: the bars of many rows hide their points."""
    if len(compared.rows) <= MAX_BARS:
        return [True] * len(compared.rows)
    return compared.on_frontier


def _legend(figure: Figure, handles_labels: Sequence[Sequence[Any]]) -> Legend:
    named = [items[:MAX_NAMED] for items in handles_labels]
    return figure.legend(*named, loc="outside lower left", ncols=2, frameon=False, fontsize=9)


def _name_rows(
    axes: Axes, compared: Comparison, edges: Sequence[tuple[Point, Point]]
) -> list[bool]:
    """Write each row's name beside its point, clear of the bars and of the edges of the frontier,
    and return for each whether there was room."""
    x, y = compared.axes
    points, lines = [], list(edges)
    for row, has_bars in zip(compared.rows, _with_bars(compared), strict=True):
        at_x, at_y = (100 * share for share in compared.point(row))
        points.append((at_x, at_y))
        if not has_bars:
            continue
        ((left,), (right,)), ((below,), (above,)) = _spread(row, x), _spread(row, y)
        lines.append(((at_x - left, at_y), (at_x + right, at_y)))
        lines.append(((at_x, at_y - below), (at_x, at_y + above)))
    labels = [row.name for row in compared.rows]
    return label_points(axes, points, labels, bold=compared.on_frontier, lines=lines)


def _limits(low: float, high: float) -> tuple[float, float]:
    """Return the lower and the upper limit of an axis in %, given the limits that its data need."""
    low = max(min(low, (low + high - MIN_SPAN) / 2), MIN_LIMIT)
    return low, max(high, low + MIN_SPAN)


def _spread(row: Row, threat: str) -> list[list[float]]:
    """Return the lengths [[below], [above]] of the error bar about a row's mean accuracy, in %."""
    middle, deviation = row.mean(threat), row.deviation(threat)
    if deviation is not None:
        return [[100 * deviation], [100 * deviation]]
    low, high = row.interval(threat)
    return [[100 * max(middle - low, 0.0)], [100 * max(high - middle, 0.0)]]
