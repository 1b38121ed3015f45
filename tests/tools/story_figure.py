"""Draw the study of fourteen trainings on photographs: the picture of the README.

    python tests/tools/story_figure.py \\
        examples/studies/results/cusp-vs-baselines-photos -o docs/photos-frontier.png

Left, spatial against adversarial accuracy: each seed is a small point and the mean over seeds a
large one, the dashed line is the Pareto frontier of the means, and the arrows lead from CuSP as
published, by way of its corrected form, to the best curriculum. Right, the joint accuracies.
"""

from itertools import pairwise
from pathlib import Path

import click
from finished import finished
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def draw_plane(axes: Axes, compared: Comparison) -> None:
    """Draw spatial against adversarial accuracy, the frontier and the arrows."""
    for row in compared.rows:
        color = COLORS[kind_of(row)]
        seeds = [[100 * each for each in row.accuracies(name)] for name in compared.axes]
        axes.plot(*seeds, ".", color=color, alpha=0.45, markersize=5, markeredgewidth=0)
        axes.plot(*percent(compared.point(row)), "o", color=color, markersize=7)
    x, y = compared.axes
    axes.set(xlabel=f"{x} accuracy, %", ylabel=f"{y} accuracy, %")
    axes.margins(0.08)
    style_axes(axes)
    axes.set(xlim=axes.get_xlim(), ylim=(-1.5, axes.get_ylim()[1]))
    edges = list(pairwise(frontier_corners(compared, left=0.0, bottom=0.0)))
    for edge in edges:
        axes.plot(*zip(*edge, strict=True), color="#888888", linewidth=1, linestyle="--", zorder=0)
    rows = {row.label: row for row in compared.rows}
    steps = [rows["cusp, as published"], rows["cusp"], best(compared)]
    for start, end in pairwise(percent(compared.point(row)) for row in steps):
        axes.annotate(
            "", end, start,
            arrowprops={"arrowstyle": "-|>", "color": "#444444", "shrinkA": 6, "shrinkB": 6},
        )  # fmt: skip
    label_points(
        axes,
        [percent(compared.point(row)) for row in compared.rows],
        ["" if row.label in KINDS[RAMPS] else row.label for row in compared.rows],
        bold=[row.label in KINDS[OWN] for row in compared.rows],
        lines=edges,
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


@click.command()
@click.argument("sweep", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=Path, required=True, help="File of the figure.")
def main(sweep: Path, output: Path) -> None:
    """Draw the figure of the finished cells of a SWEEP."""
    compared = finished(sweep)
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    plane, joint = figure.subplots(1, 2, width_ratios=(3, 2))
    for kind, color in COLORS.items():
        plane.plot([], [], "o", color=color, label=kind)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    draw_joint(joint, compared)
    draw_plane(plane, compared)
    write_figure(figure, output)


if __name__ == "__main__":
    main()
