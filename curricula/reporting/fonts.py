"""Names in every language in figures: installed fonts that have their letters, or an escape."""

import functools
import unicodedata
from typing import TYPE_CHECKING

from curricula.errors import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist

LAST_RESORT = "Last Resort"  # begins the name of matplotlib's font of boxes


def drawable(text: str) -> str:
    """Return a text, which may come from someone else, with an escape in place of each letter that
    no installed font has.

    A symbol is written as its name, ``:honeybee:``, and any other letter as Python escapes it,
    ``\\u6f22``.

    >>> drawable("wasp")
    'wasp'
    """
    text = printable(text)
    if text.isascii():
        return text
    return "".join(_escaped(each) if _family_with(each) is None else each for each in text)


def use_fonts(artist: "Artist") -> None:
    """Let each text in a figure, or in a part of it, use the installed fonts that have its letters.

    matplotlib makes titles and ticks together with the axes, before their texts are known.
    """
    from matplotlib.text import Text

    for text in artist.findobj(Text):
        assert isinstance(text, Text)
        written = text.get_text()
        if written.isascii():
            continue
        families = text.get_fontfamily()
        more = {_family_with(letter) for letter in written} - {None, "", *families}
        if more:
            text.set_fontfamily([*families, *sorted(filter(None, more))])


def _escaped(letter: str) -> str:
    """Return an ASCII text in place of a letter."""
    name = unicodedata.name(letter, "")
    if name and unicodedata.category(letter).startswith("S"):  # a symbol, such as an emoji
        return f":{name.lower().replace(' ', '_')}:"
    return letter.encode("ascii", "backslashreplace").decode()


@functools.cache
def _family_with(letter: str) -> str | None:
    """Return the family of the first installed font that has a letter, an empty text if it is
    matplotlib's default, and None if no font has it."""
    for family, letters in _fonts():
        if ord(letter) in letters:
            return family
    return None


@functools.cache
def _fonts() -> list[tuple[str, frozenset[int]]]:
    """Return the families of the installed fonts and the code points that each has: matplotlib's
    default, whose family is an empty text, then upright sans-serif ones, then the others."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    default = font_manager.findfont(font_manager.FontProperties())
    found = [("", frozenset(FT2Font(default).get_charmap()))]
    for entry in sorted(
        font_manager.fontManager.ttflist,
        key=lambda each: ("sans" not in each.name.lower(), each.style != "normal", each.name),
    ):
        if entry.name.startswith(LAST_RESORT):
            continue
        try:
            font = FT2Font(entry.fname)
        except (OSError, RuntimeError):  # deleted since, or damaged
            continue
        if font.scalable:  # emoji in colour are pixels, which matplotlib does not draw
            found.append((entry.name, frozenset(font.get_charmap())))
    return found
