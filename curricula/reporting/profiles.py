"""Draw a robustness profile: curves over each range, and a heat map over two ranges."""

from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from curricula.evaluation.robustness_profile import RobustnessProfile, Series
from curricula.reporting.figures import (
    FAINT_TEXT,
    PALETTE,
    PIXELS_PER_INCH,
    TEXT,
    as_label,
    folded,
    plain_text,
    style_axes,
)
from curricula.reporting.inline import InlineFigure

PANELS = {
    "degrees": ("(a) rotation", "within ± degrees"),
    "pixels": ("(b) translation", "within ± pixels along each axis"),
    "linf": ("(c) adversarial pixels", "eps, l-inf"),
}
# Colour, dash or marker alone tells the curves apart.
LOOKS: tuple[dict[str, Any], ...] = (
    {"color": PALETTE[0], "linestyle": "-", "marker": "o"},
    {"color": PALETTE[1], "linestyle": "--", "marker": "s"},
    {"color": PALETTE[2], "linestyle": "-.", "marker": "^"},
)
STROKE: dict[str, Any] = {"linewidth": 1.6, "markersize": 4}
BUDGET: dict[str, Any] = {"color": FAINT_TEXT, "linestyle": ":", "linewidth": 1.4}
HEAT = "cividis"  # safe for colour-blind readers, and of even lightness
MAX_TITLE = 300  # characters of the name of a model
DARK = 0.5  # share of the scale below which letters are white


@plain_text()
def profile_figure(profile: RobustnessProfile) -> Figure:
    """Return a figure of accuracy with its 95 % interval, and below it the fooling rate, both in %,
    over each range of perturbations.

    Each range has its own column, and a vertical line marks its budget.
    """
    figure = InlineFigure(figsize=(10.5, 6.2), dpi=PIXELS_PER_INCH, layout="constrained")
    panels = figure.subplots(2, len(PANELS), sharex="col", sharey=True)
    names = list(dict.fromkeys(series.name for series in profile.series))
    looks = {name: LOOKS[number % len(LOOKS)] for number, name in enumerate(names)}
    for column, (unit, (title, label)) in enumerate(PANELS.items()):
        above, below = panels[:, column]
        above.set_title(title, fontsize=10, color=TEXT)
        for series in profile.of_unit(unit):
            _draw(above, below, series, looks[series.name])
        for axes in (above, below):
            axes.axvline(profile.budget(unit), zorder=1, **BUDGET)
            style_axes(axes, small=True)
        budget = profile.shown(unit, profile.budget(unit))
        below.set_xlabel(f"{label} (budget {budget})", fontsize=9, color=TEXT)
        for series in profile.of_unit(unit)[:1]:
            ticks = series.values if len(series.values) < 8 else series.values[::2]
            below.set_xticks(ticks, [profile.shown(unit, tick) for tick in ticks])
    for axes, text in zip(panels[:, 0], ("accuracy, %", "fooling rate, %"), strict=True):
        axes.set_ylabel(text, fontsize=9, color=TEXT)
        axes.set(ylim=(-3, 103), yticks=range(0, 101, 20))
    handles = [Line2D([], [], label=as_label(name), **looks[name], **STROKE) for name in names]
    handles.append(Line2D([], [], label="budget", **BUDGET))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9,
        handlelength=3.2,
    )  # fmt: skip
    _add_title(figure, profile, "Bands: 95 % intervals.")
    return figure


def _draw(above: Axes, below: Axes, series: Series, look: dict[str, Any]) -> None:
    intervals = [found.interval for found in series.measured]
    lows, highs = ([100 * end for end in ends] for ends in zip(*intervals, strict=True))
    above.fill_between(series.values, lows, highs, color=look["color"], alpha=0.18, linewidth=0)
    accuracies = [100 * found.accuracy for found in series.measured]
    above.plot(series.values, accuracies, label=series.name, **look, **STROKE)
    rates = [100 * found.fooling_rate for found in series.measured]
    below.plot(series.values, rates, label=series.name, **look, **STROKE)


@plain_text()
def joint_figure(profile: RobustnessProfile) -> Figure:
    """Return a figure with a heat map of accuracy in % under a random rotation and then the attack.

    Cells hold the 95 % intervals, and a frame marks those within both budgets.
    """
    joint = profile.joint
    figure = InlineFigure(figsize=(8.2, 4.4), dpi=PIXELS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    shares = [[cell.accuracy for cell in row] for row in joint.rows]
    image = axes.imshow(shares, cmap=colormaps[HEAT], vmin=0, vmax=1, origin="lower", aspect="auto")
    for y, row in enumerate(joint.rows):
        for x, cell in enumerate(row):
            low, high = cell.interval
            style: dict[str, Any] = {
                "color": "white" if cell.accuracy < DARK else "black",
                "ha": "center",
            }
            axes.text(x, y + 0.04, f"{100 * cell.accuracy:.1f}", fontsize=10, va="bottom", **style)
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            axes.text(x, y - 0.04, interval, fontsize=7, va="top", **style)
    degrees = [profile.shown("degrees", value) for value in joint.degrees]
    radii = [profile.shown("linf", value) for value in joint.linf]
    axes.set_xticks(range(len(degrees)), degrees)
    axes.set_yticks(range(len(radii)), radii)
    axes.tick_params(colors=TEXT, labelsize=8, length=0)
    axes.set_xlabel("random rotation within ± degrees", fontsize=9, color=TEXT)
    axes.set_ylabel("then the attack: eps, l-inf", fontsize=9, color=TEXT)
    axes.spines[:].set_visible(False)
    _frame_budgets(axes, profile)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.2, 0.4, 0.6, 0.8, 1], pad=0.02)
    bar.ax.set_yticklabels([str(tick) for tick in range(0, 101, 20)])
    bar.set_label("accuracy, %", fontsize=9, color=TEXT)
    bar.ax.tick_params(labelsize=8, colors=TEXT, length=2)
    bar.outline.set_visible(False)
    _add_title(figure, profile, "Framed: within both budgets. Small: 95 % intervals.")
    return figure


def _frame_budgets(axes: Axes, profile: RobustnessProfile) -> None:
    """Draw a frame around the cells whose ranges are at most the budgets."""
    joint = profile.joint
    right = sum(value <= profile.budget("degrees") for value in joint.degrees) - 0.5
    top = sum(value <= profile.budget("linf") for value in joint.linf) - 0.5
    # Black on white is visible on every colour.
    for color, width in (("white", 4.0), ("black", 1.6)):
        axes.plot(
            [right, right, -0.5], [-0.5, top, top], color=color, linewidth=width, clip_on=False
        )
    axes.set(xlim=(-0.5, len(joint.degrees) - 0.5), ylim=(-0.5, len(joint.linf) - 0.5))


def _add_title(figure: Figure, profile: RobustnessProfile, note: str) -> None:
    of_model = f" of {as_label(profile.model, MAX_TITLE)}" if profile.model else ""
    images = f"{as_label(profile.data)}, {profile.n:,} test images, seed {profile.seed}"
    lines = folded(f"Robustness profile{of_model}; {images}. {note}", figure.get_figwidth(), 8)
    figure.suptitle("\n".join(lines), fontsize=8, color=FAINT_TEXT)
