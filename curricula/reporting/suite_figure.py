"""Draw the table of a suite as a heat map."""

from matplotlib import colormaps
from matplotlib.figure import Figure

from curricula.evaluation.suite_tables import SuiteTable
from curricula.reporting.figures import (
    FAINT_TEXT,
    PIXELS_PER_INCH,
    TEXT,
    as_label,
    folded,
    plain_text,
)
from curricula.reporting.inline import InlineFigure

HEAT = "cividis"  # safe for colour-blind readers, and of even lightness
DARK = 0.5  # accuracy below which digits are white
MAX_SHOWN = 60  # rows and columns of a figure
MAX_NAME = 24  # characters of the name of a row or column


@plain_text()
def suite_figure(table: SuiteTable) -> Figure:
    """Return a figure with the accuracy in % in each row and column of a suite's table, and the
    means of severities; at most 60 rows and columns."""
    rows, columns = list(table.rows)[:MAX_SHOWN], list(table.columns)[:MAX_SHOWN]
    nan = float("nan")
    shares = [
        [
            table.rows[row][column].accuracy if column in table.rows[row] else nan
            for column in columns
        ]
        for row in rows
    ]
    names = [as_label(row, MAX_NAME) for row in rows]
    headings = [as_label(column, MAX_NAME) for column in columns]
    if table.has_severities:
        shares = [[*line, 1 - table.error(row)] for row, line in zip(rows, shares, strict=True)]
        shares.append([*table.column_means[: len(columns)], 1 - table.mean_error])
        names, headings = [*names, "mean"], [*headings, "mean"]
    width = 2.6 + max(0.62 * len(headings), 3.0)
    figure = InlineFigure(
        figsize=(width, 1.3 + 0.27 * len(names)), dpi=PIXELS_PER_INCH, layout="constrained"
    )
    axes = figure.add_subplot()
    axes.imshow(shares, cmap=colormaps[HEAT], vmin=0, vmax=1, aspect="auto")
    for y, line in enumerate(shares):
        for x, share in enumerate(line):
            if share == share:
                color = "white" if share < DARK else "black"
                axes.text(
                    x, y, f"{100 * share:.1f}", color=color, fontsize=8, ha="center", va="center"
                )
    axes.set_xticks(range(len(headings)), headings)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(colors=TEXT, labelsize=8, length=0)
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    if table.has_severities:  # a line on both sides of the means
        for draw, at in ((axes.axhline, len(rows)), (axes.axvline, len(columns))):
            draw(at - 0.5, color="white", linewidth=3)
        axes.set_xlabel("severity", fontsize=9, color=TEXT)
        axes.xaxis.set_label_position("top")
    note = f"{as_label(table.suite)}: {table.measure}, {table.n:,} images."
    lines = folded(note, figure.get_figwidth(), 8)
    figure.suptitle("\n".join(lines), fontsize=8, color=FAINT_TEXT)
    return figure
