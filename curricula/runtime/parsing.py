"""Read JSON and TOML that may come from someone else: any bytes give a value or an error, soon.

Numbers are finite and have at most 64 bits; no key occurs twice; nesting is shallow.
"""

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from curricula.errors import shown
from curricula.runtime.files import read_file

MAX_TEXT = 2**28  # bytes of a text file
MAX_TOML = 2**20  # bytes of a TOML file, which are parsed slowly
MAX_DIGITS = 19  # digits of a whole number: 64 bits
MAX_NESTING = 50  # levels of a TOML file
# tomllib takes time quadratic in the parts of a dotted key.
MAX_DOTS = 100  # dots in a line of TOML, outside of strings and comments

# No possessive quantifier of a group: Python 3.11.2 matches some of them wrongly.
_NOT_BARE = re.compile(
    r"""
      \#[^\n]*+
    | \"{3} (?: [^"\\]++ | \\. | "(?!"") )* (?: "{3,5} )?
    | '{3} (?: [^']++ | '(?!'') )* (?: '{3,5} )?
    | " (?: [^"\\\n]++ | \\[^\n] )* "?
    | ' [^'\n]*+ '?
    """,
    re.VERBOSE | re.DOTALL,
)

_OVERWRITES = re.compile(r"Cannot overwrite a value \(at (?:line (\d+), column \d+|end of doc)")
_PART = r"""(?: [\w-]++ | "[^"\n]*+" | '[^'\n]*+' )"""
_ASSIGNED = re.compile(
    rf"\s*+ (?: \[++ \s*+ )? ( {_PART} (?: \s*+ \. \s*+ {_PART} )* ) \s*+ []=]", re.VERBOSE
)
"""The key that a line of TOML gives a value to, or the name of the table that it begins."""


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """Return the text of a regular UTF-8 file, without a byte order mark.

    Args:
        path: the file.
        limit: largest size, in bytes.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is not a regular file, is too large or cannot be read.
        ValueError: it is not UTF-8, or the path is no path.
    """
    return read_file(path, limit).decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """Return the value that a JSON text describes.

    >>> parse_json('{"epoch": 1}')
    {'epoch': 1}

    Raises:
        ValueError: it is not JSON, or exceeds the bounds of this module; one line.
    """
    try:
        return _JSON.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the values that a TOML text describes, by key.

    >>> parse_toml("epochs = 3")
    {'epochs': 3}

    Raises:
        ValueError: it is not TOML, or exceeds the bounds of this module; one line.
    """
    bare = _NOT_BARE.sub('""', text)
    if any(line.count(".") > MAX_DOTS for line in bare.split("\n")):
        raise ValueError(f"a line has more than {MAX_DOTS} dots; write one value a line")
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        if "Exceeds the limit" in str(error):  # of Python
            raise ValueError("a whole number has too many digits") from error
        if place := _OVERWRITES.match(str(error)):
            lines = text.split("\n")[: int(place[1]) if place[1] else None]
            keys = [key[1] for line in lines if (key := _ASSIGNED.match(line))]
            if keys:
                raise ValueError(f"it has the key {shown(keys[-1])} twice") from error
        raise
    _check_toml(values, 0)
    return values


def _check_toml(value: Any, level: int) -> None:
    """Raise a ValueError if a TOML value has whole numbers of more than 64 bits, or deep
    nesting."""
    if level > MAX_NESTING:
        raise ValueError("it is nested too deeply")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a whole number has too many digits")
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    for part in parts:
        _check_toml(part, level + 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {shown(twice)} twice")
    return found


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("a whole number has too many digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text)} is too large")
    return value


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


_JSON = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_finite, parse_constant=_refused
)
