"""Tables of records for notebooks: as HTML, and as data frames of pandas."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curricula.errors import UserError, printable

if TYPE_CHECKING:
    import pandas

MAX_CELL = 300  # characters of a cell


def data_frame(columns: Mapping[str, Any]) -> "pandas.DataFrame":
    """Return a data frame with the given columns, by their headings.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UserError(
            "to_pandas needs pandas, which is not installed: pip install pandas"
        ) from error
    return pandas.DataFrame(columns)


def frame_of_rows(rows: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    """Return a data frame with the given rows, which have the same headings.

    Raises:
        UserError: pandas is not installed.
    """
    headings = rows[0] if rows else ()
    return data_frame({heading: [row[heading] for row in rows] for heading in headings})


def html_table(
    caption: str, header: Iterable[str], rows: Iterable[Sequence[object]], *, note: str = ""
) -> str:
    """Return a table as HTML, every text escaped, with a caption above and a note below.

    >>> html_table("Runs", ["name"], [["<a>"]])
    '<b>Runs</b><table><thead><tr><th>name</th></tr></thead><tbody><tr><td>&lt;a&gt;</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{_cell(heading)}</th>" for heading in header)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    below = f"<small>{_cell(note)}</small>" if note else ""
    return f"<b>{_cell(caption)}</b>{table}{below}"


def html_values(caption: str, values: Mapping[str, object]) -> str:
    """Return values by name as an HTML table of two columns, every text escaped."""
    return html_table(caption, ("", ""), values.items())


def _cell(value: object) -> str:
    text = printable(str(value))
    return html.escape(text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…")
