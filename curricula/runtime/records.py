"""Convert records, which are attrs classes, to and from JSON, for every written file.

A record's keys are its fields, in order. A class whose files have different keys registers a
function that returns them (`register_json`). Reading ignores unknown keys, and accepts nothing else
that was not written so: no text as a list, no "12" as a count.
"""

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NoReturn, TypeVar, cast

import attrs

from curricula.errors import message_of, shown

T = TypeVar("T")

_PLAIN: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
}
_WRITTEN: dict[type, Callable[[Any], Mapping[str, Any] | Sequence[Any]]] = {}


def register_json(cls: type[T], written: Callable[[T], Mapping[str, Any] | Sequence[Any]]) -> None:
    """Use a function, which returns a mapping or a list, to write the JSON of a class's records
    instead of all their fields.

    Args:
        cls: an attrs class.
        written: returns the keys and values of a record's JSON, in order, or its parts; values may
            be records.
    """
    _WRITTEN[cls] = written


def fields_of(record: Any) -> dict[str, Any]:
    """Return a record's field values by name, unconverted, for functions given to
    `register_json`."""
    return {field.name: getattr(record, field.name) for field in attrs.fields(type(record))}


def to_json(value: Any) -> Any:
    """Return a record, or a collection of records, as dicts, lists and plain values for JSON.

    >>> @attrs.frozen
    ... class Point:
    ...     x: float
    ...     labels: tuple[str, ...]
    >>> to_json([Point(0.5, ("a", "b"))])
    [{'x': 0.5, 'labels': ['a', 'b']}]
    """
    if attrs.has(type(value)):
        value = _WRITTEN.get(type(value), fields_of)(value)
    if isinstance(value, Mapping):
        return {key: to_json(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(part) for part in value]
    return value


def from_json(cls: type[T], value: Any) -> T:
    """Return the record, or the collection of records, that a JSON value from `to_json` describes.

    >>> @attrs.frozen
    ... class Point:
    ...     x: float
    ...     labels: tuple[str, ...]
    >>> from_json(Point, {"x": 0.5, "labels": ["a", "b"]})
    Point(x=0.5, labels=('a', 'b'))
    >>> from_json(list[Point], [{"x": "0.5", "labels": []}])
    Traceback (most recent call last):
    TypeError: [0].x must be a number, not '0.5'

    Args:
        cls: an attrs class, a list, tuple or mapping of such classes, or a plain type.
        value: what was read.

    Raises:
        KeyError: a field is missing.
        TypeError: a value has the wrong type.
        ValueError: a value is out of range.
    """
    return cast(T, _structured(cls, value, ""))


def _structured(wanted: Any, value: Any, place: str) -> Any:
    """Return a JSON value converted to a type; ``place`` names the value in errors, such as
    ``rows[2].n``."""
    if wanted in _PLAIN:
        return _plain(wanted, value, place)
    if attrs.has(wanted):
        return _record(wanted, value, place)
    origin, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        if not isinstance(value, str) or value not in parts:
            _fail(place, " or ".join(parts), value)
        return value
    if origin is Mapping:
        if not isinstance(value, dict):
            _fail(place, "an object", value)
        return {
            key: _structured(parts[1], part, f"{place}[{shown(key)}]")
            for key, part in value.items()
        }
    if origin in (list, tuple):
        if not isinstance(value, list):
            _fail(place, "a list", value)
        return origin(_structured(parts[0], part, f"{place}[{i}]") for i, part in enumerate(value))
    assert (origin, parts[1]) == (types.UnionType, types.NoneType), f"records have no {wanted}"
    return None if value is None else _structured(parts[0], value, place)


def _plain(wanted: type, value: Any, place: str) -> Any:
    """Return a JSON value as the given plain type; a whole number may stand for a float."""
    if type(value) is not wanted and (wanted, type(value)) != (float, int):
        _fail(place, _PLAIN[wanted], value)
    try:
        return wanted(value)
    except OverflowError as error:
        raise ValueError(
            f"{place} must be {_PLAIN[wanted]}, not {shown(value)}".lstrip()
        ) from error


def _record(wanted: Any, value: Any, place: str) -> Any:
    """Return the record of a class that a JSON object describes."""
    if not isinstance(value, dict):
        _fail(place, "an object", value)
    begin = f"{place}." if place else ""
    found = {}
    for name, (kind, required) in _fields(wanted).items():
        if name in value:
            found[name] = _structured(kind, value[name], begin + name)
        elif required:
            raise KeyError(f"{begin}{name} is missing")
    try:
        return wanted(**found)
    except ValueError as error:  # of its validators
        raise ValueError(f"{place}: {message_of(error)}" if place else message_of(error)) from error


@cache
def _fields(wanted: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of each field of a class, and whether it has no default, by name."""
    attrs.resolve_types(wanted)
    return {
        field.name: (field.type, field.default is attrs.NOTHING) for field in attrs.fields(wanted)
    }


def _fail(place: str, expected: str, value: Any) -> NoReturn:
    raise TypeError(f"{place} must be {expected}, not {shown(value)}".lstrip())
