"""A page of HTML that needs nothing else, and its figures as files."""

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import attrs
import jinja2
from matplotlib.figure import Figure

from curricula.errors import UserError
from curricula.reporting.figures import write_figure
from curricula.runtime.files import write_atomic

REPORT = "report.html"
FIGURES = "figures"
FORMATS = (".svg", ".png")
REM_AN_INCH = 5.5  # at which a figure's letters can be read on a phone, where it is moved sideways


@attrs.frozen(kw_only=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: of its files.
        figure: as drawn.
        kind: ``chart``, which a dark page inverts, or ``picture``, which it leaves.
        alt: what it shows, for who does not see it.
        caption: below it.
    """

    name: str
    figure: Figure
    kind: Literal["chart", "picture"] = "chart"
    alt: str
    caption: str = ""


@attrs.frozen
class Line:
    """Of a table: its cells, whether it is on the frontier, whether its second cell says that
    something failed."""

    cells: Sequence[str]
    front: bool = False
    failed: bool = False


@attrs.frozen(kw_only=True)
class Table:
    """Lines of text; ``texts`` are the numbers of columns that are prose."""

    header: Sequence[str]
    rows: Sequence[Line]
    texts: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        title, text: above it.
        table: of figures, if any.
        pictures: below.
        values: named ones, such as a configuration.
        missing: what was not measured, each with the commands that measure it.
    """

    title: str
    text: str = ""
    table: Table | None = None
    pictures: Sequence[Picture] = ()
    values: Mapping[str, str] = attrs.field(factory=dict)
    missing: Mapping[str, Sequence[str]] = attrs.field(factory=dict)


def write_page(folder: Path, *, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write a page into a folder, as ``report.html``, and each figure as PNG and SVG into
    ``figures/``.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        (folder / FIGURES).mkdir(exist_ok=True)
        page = _template().render(
            title=title, subtitle=subtitle, sections=[_shown(s, folder) for s in sections]
        )
        write_atomic(folder / REPORT, page.encode())
    except OSError as error:
        raise UserError(f"report of {folder}: cannot be written ({error})") from error
    return folder / REPORT


def _template() -> jinja2.Template:
    text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(text)


def _shown(section: Section, folder: Path) -> dict[str, Any]:
    """What the template takes of a section, after its figures are written as files."""
    figures = []
    for picture in section.pictures:
        for suffix in FORMATS:
            write_figure(picture.figure, folder / FIGURES / f"{picture.name}{suffix}")
        suffix, kind = (".svg", "svg+xml") if picture.kind == "chart" else (".png", "png")
        content = (folder / FIGURES / f"{picture.name}{suffix}").read_bytes()
        encoded = base64.b64encode(content).decode("ascii")
        figures.append(
            {
                "kind": picture.kind,
                "alt": picture.alt,
                "caption": picture.caption,
                "readable": f"{REM_AN_INCH * picture.figure.get_figwidth():.1f}rem",
                "uri": f"data:image/{kind};base64,{encoded}",
            }
        )
    return {
        "title": section.title,
        "text": section.text,
        "table": section.table,
        "figures": figures,
        "named": section.values,
        "missing": section.missing,
    }
