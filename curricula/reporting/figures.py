"""Style, formats and files of all figures.

Figures are objects of matplotlib: no pyplot, no global state, no display.
"""

import contextlib
import functools
import io
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from curricula.errors import UserError
from curricula.reporting.fonts import drawable, use_fonts
from curricula.runtime.files import check_output, write_output

if TYPE_CHECKING:  # `check_figure` comes before matplotlib, which takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

FORMATS = (".png", ".svg", ".pdf")
PIXELS_PER_INCH = 160  # pixels per inch of a PNG file
MAX_LABEL = 60  # characters of a label
MAX_NAMED = 60  # curves or points with a name in one figure
LEGEND_LINE = 0.2  # inches per line of the legend, at 9 points
TEXT, FAINT_TEXT = "#222222", "#666666"

# The palette of Okabe and Ito (2008), without the yellow, which is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":")  # line styles, which tell overlapping curves apart


def folded(text: str, inches: float, points: float) -> list[str]:
    """Return a text's lines, wrapped to a width in inches at a font size in points.

    A letter is 0.62 times as wide as its size, on average.
    """
    return textwrap.wrap(text, int(inches * 72 / (0.62 * points)), break_on_hyphens=False)


def as_label(text: str, length: int = MAX_LABEL) -> str:
    """Return a text, which may come from someone else, as a label that a legend shows.

    A long one loses its middle. matplotlib leaves labels with a leading underscore, and empty ones,
    out of a legend.

    Args:
        text: the text.
        length: largest number of characters.
    """
    label = drawable(text)
    if len(label) > length:
        half = (length - 1) // 2
        label = f"{label[: length - 1 - half]}…{label[len(label) - half :]}"
    return f" {label}" if not label or label.startswith("_") else label


class plain_text(contextlib.AbstractContextManager[None]):  # noqa: N801 -- called like a function
    """Draw every text inside the block, or the decorated function, as it is written: matplotlib
    would read dollars as a formula, and stop at a wrong one.

    The texts of a figure that the function returns use the installed fonts that have their letters.
    Letters that none has are escaped by `as_label` or `drawable`.
    """

    def __enter__(self) -> None:
        import matplotlib

        self._settings = matplotlib.rc_context({"text.parse_math": False})
        self._settings.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._settings.__exit__(*error)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def drawing(*arguments: P.args, **keywords: P.kwargs) -> T:
            from matplotlib.figure import Figure

            with plain_text():
                found = function(*arguments, **keywords)
                if isinstance(found, Figure):
                    use_fonts(found)
                return found

        return drawing


def style_axes(axes: "Axes", *, small: bool = False) -> None:
    """Draw a faint grid behind the data and remove the upper and the right frame line.

    Args:
        axes: the axes to style.
        small: use small letters.
    """
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=TEXT, labelsize=8 if small else None)


def height_with_legend(height: float, entries: int) -> float:
    """Return a figure's height in inches: ``height``, and below it a legend of N entries in two
    columns, at 9 points."""
    return height + LEGEND_LINE * ((min(entries, MAX_NAMED) + 1) // 2)


def check_figure(path: Path) -> None:
    """Check that a figure can be written to a file, before any work.

    Raises:
        UserError: the suffix is not a known format; as `check_output` does.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"output {path}: its name must end in {', '.join(FORMATS)}")
    check_output(path)


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the file's suffix.

    Raises:
        UserError: as `check_figure` does; a full disk.
    """
    check_figure(path)
    write_output(path, drawn(figure, path.suffix.lower()))  # drawn before the file is touched


def drawn(figure: "Figure", suffix: str) -> bytes:
    """Return a figure as the contents of a file with the given suffix, such as ``.png``."""
    stream = io.BytesIO()
    with plain_text():
        figure.savefig(stream, format=suffix.removeprefix("."))
    return stream.getvalue()
