"""Names in every language in figures: installed fonts that have their letters, or an escape."""

import functools
import unicodedata

from curricula.errors import printable

LAST_RESORT = "Last Resort"  # begins the name of matplotlib's font of boxes


def drawable(text: str) -> str:
    """Return a text, which may come from someone else, as the current block of `plain_text` can
    draw it, and let the block use the installed fonts that have its letters.

    A symbol that no font has is written as its name, ``:honeybee:``, and any other letter as Python
    escapes it, ``\\u6f22``.

    >>> drawable("wasp")
    'wasp'
    """
    text = printable(text)
    if text.isascii():
        return text
    import matplotlib

    drawn = ""
    for letter in text:
        family = _family_with(letter)
        families = matplotlib.rcParams["font.family"]
        # Outside of the block, the fonts of the process stay as they are.
        if family and family not in families and not matplotlib.rcParams["text.parse_math"]:
            matplotlib.rcParams["font.family"] = [*families, family]
        drawn += letter if family is not None else _escaped(letter)
    return drawn


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
