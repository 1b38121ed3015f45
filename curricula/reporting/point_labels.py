"""Name the points of a scatter plot beside them."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from curricula.reporting.figures import MAX_NAMED, TEXT, as_label, plain_text
from curricula.reporting.fonts import use_fonts

GAP = 6  # points between a point and its name
FREE = 4  # points on each side of a point that no name covers
# Directions from a point to its name, with the sides of the name that face the point.
PLACES = (
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (0.7, 0.7, "left", "bottom"),
    (-0.7, 0.7, "right", "bottom"),
    (0.7, -0.7, "left", "top"),
    (-0.7, -0.7, "right", "top"),
)

Position = tuple[float, float]


@plain_text()
def label_points(
    axes: Axes,
    points: Sequence[Position],
    labels: Sequence[str],
    *,
    bold: Sequence[bool],
    lines: Sequence[tuple[Position, Position]] = (),
) -> list[bool]:
    """Write the name of each point beside it, and return for each whether there was room.

    A name covers no other name, no point and no line. Bold names come first; 60 are tried.

    Args:
        axes: axes whose limits are set, in a figure that is otherwise complete.
        points: the points, in the units of the data.
        labels: a name for each.
        bold: whether to write it in bold.
        lines: segments drawn already, such as error bars.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    use_fonts(figure)
    figure.draw_without_rendering()  # makes the layout, which fixes the scale of the axes
    # Measures text. By default matplotlib makes a renderer for each name.
    renderer = RendererAgg(1, 1, figure.dpi)  # type: ignore[no-untyped-call]
    free = FREE * figure.dpi / 72
    at = [axes.transData.transform(point) for point in points]
    taken = [Bbox([place - free, place + free]) for place in at]
    strokes = [Path(axes.transData.transform(line)) for line in lines]
    page = axes.get_window_extent()
    written = [False] * len(points)
    for number in sorted(range(len(points)), key=lambda number: not bold[number])[:MAX_NAMED]:
        for across, up, side, edge in PLACES:
            name = axes.annotate(
                as_label(labels[number]), points[number], (GAP * across, GAP * up),
                textcoords="offset points", ha=side, va=edge, fontsize=9, color=TEXT,
                weight="bold" if bold[number] else "normal",
            )  # fmt: skip
            use_fonts(name)
            name.set_in_layout(False)
            box = name.get_window_extent(renderer)
            covers = any(map(box.overlaps, taken)) or any(
                stroke.intersects_bbox(box, filled=False) for stroke in strokes
            )
            if not covers and page.count_contains(box.corners()) == len(box.corners()):
                taken.append(box)
                written[number] = True
                break
            name.remove()
    return written
