"""Write a self-contained HTML page, and its figures as files."""

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import attrs
import jinja2
from matplotlib.figure import Figure

from curricula.errors import UserError, printable
from curricula.reporting.figures import drawn, write_figure
from curricula.runtime.files import inside, write_atomic
from curricula.training.run import FIGURES, REPORT

FORMATS = (".svg", ".png")
REM_PER_INCH = 5.05  # rem per inch of a figure: readable on a phone, where 4.4 inches fit


@attrs.frozen(kw_only=True)
class Picture:
    """A figure of the HTML page, with its file name, alternative text and caption.

    Attributes:
        name: name of its files, without a suffix.
        figure: the figure.
        kind: ``chart``, which a dark page inverts, or ``picture``, which it does not.
        alt: description for readers who cannot see it.
        caption: text below it.
    """

    name: str
    figure: Figure
    kind: Literal["chart", "picture"] = "chart"
    alt: str
    caption: str = ""


@attrs.frozen
class Line:
    """One row of a table on the HTML page: its cells, and how they are marked.

    Attributes:
        cells: texts of its cells.
        on_frontier: mark the line with a star.
        failed: show its second cell as a failure.
    """

    cells: Sequence[str]
    on_frontier: bool = False
    failed: bool = False


@attrs.frozen(kw_only=True)
class Table:
    """A table of texts on the HTML page: a header and rows.

    Attributes:
        header: heading of each column.
        rows: its lines.
        texts: indices of the columns that hold prose, which are wrapped.
    """

    header: Sequence[str]
    rows: Sequence[Line]
    texts: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class Section:
    """One section of the HTML page: a heading, a text, a table and figures.

    Attributes:
        title, text: heading and introduction.
        table: a table, if any.
        pictures: figures, below the table.
        values: values by name, such as a configuration.
        missing: notes on missing results, each with the commands that measure them.
    """

    title: str
    text: str = ""
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    values: Mapping[str, str] = attrs.field(factory=dict)
    missing: Mapping[str, Sequence[str]] = attrs.field(factory=dict)


def write_page(folder: Path, *, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write a page into a folder as ``report.html``, and its figures as PNG and SVG into
    ``figures/``; return the path of the page.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        inside(folder, FIGURES).mkdir(exist_ok=True)
        page = render_page(title=title, subtitle=subtitle, sections=sections, folder=folder)
        write_atomic(inside(folder, REPORT), page.encode())
    except OSError as error:
        raise UserError(f"report of {folder}: cannot be written ({error})") from error
    return folder / REPORT


def render_page(
    *, title: str, subtitle: str, sections: Sequence[Section], folder: Path | None = None
) -> str:
    """Return the HTML of a page, with its figures inside.

    Args:
        title, subtitle, sections: what it shows.
        folder: folder that receives the figures as PNG and SVG, too.
    """
    shown = [_shown(section, folder) for section in sections]
    return _template().render(title=title, subtitle=subtitle, sections=shown)


def _template() -> jinja2.Template:
    """Return the Jinja template of the HTML page."""
    text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return jinja2.Environment(
        autoescape=True,
        finalize=lambda value: printable(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    ).from_string(text)


def _shown(section: Section, folder: Path | None) -> dict[str, Any]:
    """Return a section's values for the template, and write its figures into a folder, if any."""
    figures = []
    for picture in section.pictures:
        suffix, kind = (".svg", "svg+xml") if picture.kind == "chart" else (".png", "png")
        if folder is None:
            content = drawn(picture.figure, suffix)
        else:
            for each in FORMATS:
                write_figure(picture.figure, inside(folder, f"{FIGURES}/{picture.name}{each}"))
            content = (folder / FIGURES / f"{picture.name}{suffix}").read_bytes()
        encoded = base64.b64encode(content).decode("ascii")
        figures.append(
            {
                "kind": picture.kind,
                "alt": picture.alt,
                "caption": picture.caption,
                "readable": f"{REM_PER_INCH * picture.figure.get_figwidth():.1f}rem",
                "uri": f"data:image/{kind};base64,{encoded}",
            }
        )
    return {
        "title": section.title,
        "text": section.text,
        "table": section.table,
        "figures": figures,
        "settings": section.values,
        "missing": section.missing,
    }
