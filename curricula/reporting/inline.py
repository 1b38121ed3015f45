"""Figures that a notebook shows inline, without pyplot and its global state."""

from typing import Any

from matplotlib.figure import Figure

from curricula.reporting.figures import drawn

POINTS_PER_INCH = 80  # size at which a notebook shows an inch of a figure, in its own pixels


class InlineFigure(Figure):
    """A figure of matplotlib that a notebook shows when it is the value of a cell.

    IPython shows a plain figure only after pyplot has been imported.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        width, height = (round(POINTS_PER_INCH * inches) for inches in self.get_size_inches())
        return drawn(self, ".png"), {"width": width, "height": height}
