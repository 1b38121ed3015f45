"""Draw the study of fourteen trainings on photographs: the picture of the README.

    python tests/tools/story_figure.py \\
        examples/studies/results/cusp-vs-baselines-photos -o docs/photos-frontier.png

Left, spatial against adversarial accuracy, below with the crowded part larger: each seed is a small
point and the mean over seeds a large one, the dashed line is the Pareto frontier of the means, and
the arrows lead from CuSP as published to its corrected form, and from there to the best curriculum.
Right, the joint accuracies.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import click
from finished import finished
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from script import Script

from curricula.evaluation.pareto import Point
from curricula.reporting.figures import PALETTE, style_axes, write_figure
from curricula.reporting.pareto_figure import frontier_corners
from curricula.reporting.point_labels import label_points
from curricula.sweeps.comparison import Comparison, Row

RAMPS, OWN = "ramps, constant", "found for this library"
KINDS = {
    "CuSP, as published": ("cusp, as published", "cusp, trades, as published"),
    "CuSP, corrected": ("cusp", "cusp, trades"),
    RAMPS: ("constant", "both to 10 %", "both to 20 %", "both to 40 %"),
    OWN: ("self-paced", "overshoot"),
    "one threat or none": ("plain", "augmented", "pgd", "trades"),
}
CROWDED = (*KINDS[RAMPS], *KINDS[OWN], "pgd", "cusp")
"""Methods that lie close together; they are drawn once more and larger."""
COLORS = dict(zip(KINDS, (PALETTE[1], PALETTE[6], PALETTE[5], PALETTE[0], PALETTE[4]), strict=True))


def kind_of(row: Row) -> str:
    """Return the kind of training of a row."""
    return next(kind for kind, labels in KINDS.items() if row.label in labels)


def best(compared: Comparison) -> Row:
    """Return the row of the library's trainings whose mean joint accuracy is highest."""
    own = [row for row in compared.rows if row.label in KINDS[OWN]]
    return max(own, key=lambda row: row.mean("joint"))


def percent(point: Point) -> Point:
    """Return a pair of fractions in %."""
    return 100 * point[0], 100 * point[1]


def draw_points(
    axes: Axes, compared: Comparison, *, arrow: tuple[Row, Row], named: list[Row]
) -> None:
    """Draw the points of all rows and seeds, the frontier, an arrow, and the names of some rows."""
    for row in compared.rows:
        color = COLORS[kind_of(row)]
        seeds = [[100 * each for each in row.accuracies(name)] for name in compared.axes]
        axes.plot(*seeds, ".", color=color, alpha=0.45, markersize=5, markeredgewidth=0)
        axes.plot(*percent(compared.point(row)), "o", color=color, markersize=7)
    edges = list(pairwise(frontier_corners(compared, left=0.0, bottom=0.0)))
    for edge in edges:
        axes.plot(*zip(*edge, strict=True), color="#888888", linewidth=1, linestyle="--", zorder=0)
    start, end = (percent(compared.point(row)) for row in arrow)
    axes.annotate(
        "", end, start,
        arrowprops={"arrowstyle": "-|>", "color": "#444444", "shrinkA": 5, "shrinkB": 5},
    )  # fmt: skip
    label_points(
        axes,
        [percent(compared.point(row)) for row in named],
        [row.label.removeprefix("both to ") for row in named],
        bold=[row.label in KINDS[OWN] for row in named],
        lines=[*edges, (start, end)],
    )


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return a range in which values lie with some room on both sides."""
    room = 0.22 * (max(values) - min(values))
    return min(values) - room, max(values) + room


def draw_planes(whole: Axes, close: Axes, compared: Comparison) -> None:
    """Draw spatial against adversarial accuracy and the arrows, and the crowded part once more and
    larger."""
    rows = {row.label: row for row in compared.rows}
    crowded = [percent(compared.point(rows[label])) for label in CROWDED]
    across, up = zip(*crowded, strict=True)
    x, y = compared.axes
    for axes in (whole, close):
        axes.set(xlabel=f"{x} accuracy, %", ylabel=f"{y} accuracy, %")
        style_axes(axes)
    seeds = {
        name: [100 * s for row in rows.values() for s in row.accuracies(name)] for name in (x, y)
    }
    whole.set(xlim=limits(seeds[x]), ylim=(-1.5, limits(seeds[y])[1]))
    close.set(xlim=limits(across), ylim=limits(up))
    left, right, bottom, top = *close.get_xlim(), *close.get_ylim()
    whole.indicate_inset((left, bottom, right - left, top - bottom), edgecolor="#444444")
    close.set_title("inside the box", fontsize=10)
    others = [row for row in compared.rows if row.label not in CROWDED]
    published, cusp = rows["cusp, as published"], rows["cusp"]
    draw_points(whole, compared, arrow=(published, cusp), named=others)
    draw_points(
        close, compared, arrow=(cusp, best(compared)), named=[rows[label] for label in CROWDED]
    )


def draw_joint(axes: Axes, compared: Comparison) -> None:
    """Draw the joint accuracies, the best method above."""
    rows = sorted(compared.rows, key=lambda row: row.mean("joint"))
    for height, row in enumerate(rows):
        color = COLORS[kind_of(row)]
        seeds = [100 * share for share in row.accuracies("joint")]
        axes.plot(seeds, [height] * len(seeds), ".", color=color, alpha=0.45, markersize=7)
        axes.plot([100 * row.mean("joint")], [height], "|", color=color, markersize=14, mew=2)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set(xlabel="joint accuracy, %", xlim=(0, None))
    style_axes(axes)


@click.command(cls=Script)
@click.argument("sweep", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=Path, required=True, help="File of the figure.")
def main(sweep: Path, output: Path) -> None:
    """Draw the figure of the finished cells of a SWEEP."""
    compared = finished(sweep)
    figure = Figure(figsize=(10, 7.6), layout="constrained")
    axes = figure.subplot_mosaic([["whole", "joint"], ["close", "joint"]], width_ratios=(3, 2))
    for kind, color in COLORS.items():
        axes["whole"].plot([], [], "o", color=color, label=kind)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    draw_joint(axes["joint"], compared)
    draw_planes(axes["whole"], axes["close"], compared)
    write_figure(figure, output)


if __name__ == "__main__":
    main()
