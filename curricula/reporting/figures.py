"""What all figures share: looks, formats, files. They are objects of matplotlib: no pyplot, no
global state, no display."""

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from curricula.errors import UserError
from curricula.runtime.files import check_output, write_output

if TYPE_CHECKING:  # `check_figure` comes before matplotlib, which takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
PIXELS_PER_INCH = 160
LEGEND_LINE = 0.2  # inches, at 9 points
TEXT, FAINT_TEXT = "#222222", "#666666"

# The palette of Okabe and Ito (2008), less the yellow, which is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":")  # curves that run together stay apart


def folded(text: str, inches: float, points: float) -> list[str]:
    """The lines of a text that is to fit a width; a letter is 0.62 of its size on average."""
    return textwrap.wrap(text, int(inches * 72 / (0.62 * points)), break_on_hyphens=False)


def named(text: str) -> str:
    """What a user named, as a label that shows each of its letters: no formula, and never left out
    of a legend."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def style_axes(axes: "Axes", *, small: bool = False) -> None:
    """A faint grid behind the data, no frame above and at the right; small letters on request."""
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=TEXT, labelsize=8 if small else None)


def beside_a_legend(height: float, lines: int) -> float:
    """In inches, of a figure with a legend of so many lines beside it, at 9 points."""
    return max(height, LEGEND_LINE * (lines + 1))


def check_figure(path: Path) -> None:
    """Refuse a file that no figure can be written to, before any work.

    Raises:
        UserError: a suffix that is no format of ours; as `check_output` does.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"output {path}: its name must end in {', '.join(FORMATS)}")
    check_output(path)


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in the format that the file's suffix names.

    Raises:
        UserError: as `check_figure` does; a full disk.
    """
    check_figure(path)
    drawn = io.BytesIO()  # drawn whole before the file is touched
    figure.savefig(drawn, format=path.suffix.lower().removeprefix("."))
    write_output(path, drawn.getvalue())
