"""Convert records, which are attrs classes, to and from JSON, for every written file.

A record's keys are its fields, in order. A class whose files have different keys registers a
function that returns them (`register_json`). Reading ignores unknown keys.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from curricula.errors import shown

if TYPE_CHECKING:  # slow to import, and registering a class does not need it
    from cattrs import Converter

T = TypeVar("T")

_TYPES: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
}
_WRITTEN: dict[type, Callable[[Any], Mapping[str, Any]]] = {}


def register_json(cls: type[T], written: Callable[[T], Mapping[str, Any]]) -> None:
    """Register a function that returns the JSON of a class's records, in place of their fields.

    Args:
        cls: an attrs class.
        written: returns the keys and values of a record's JSON, in order; values may be records.
    """
    _WRITTEN[cls] = written


def fields_of(record: Any) -> dict[str, Any]:
    """Return a record's fields by name, unconverted: for the functions of `register_json`."""
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
    return _converter().unstructure(value)


def from_json(cls: type[T], value: Any) -> T:
    """Return the record of class ``cls`` that a JSON value describes, as `to_json` writes it.

    >>> @attrs.frozen
    ... class Point:
    ...     x: float
    ...     labels: tuple[str, ...]
    >>> from_json(Point, {"x": 0.5, "labels": ["a", "b"]})
    Point(x=0.5, labels=('a', 'b'))

    Raises:
        KeyError: a field is missing.
        TypeError: a value has the wrong type.
        ValueError: a value is out of range.
    """
    return _converter().structure(value, cls)


@cache
def _converter() -> "Converter":
    """Return the converter of all records, made on first use."""
    import cattrs

    converter = cattrs.Converter(
        detailed_validation=False,  # plain errors, not groups of them
        unstruct_collection_overrides={tuple: list},
    )
    converter.register_unstructure_hook_func(
        lambda cls: cls in _WRITTEN,
        lambda value: {
            key: converter.unstructure(part) for key, part in _WRITTEN[type(value)](value).items()
        },
    )
    for cls, words in _TYPES.items():
        converter.register_structure_hook(cls, _checked(words))
    return converter


def _checked(words: str) -> Callable[[Any, Any], Any]:
    """Return a hook that accepts values of a plain type, and whole numbers as numbers: "12" is no
    count."""

    def structure(value: Any, wanted: type) -> Any:
        if type(value) is not wanted and (wanted, type(value)) != (float, int):
            raise TypeError(f"must be {words}, not {shown(value)}")
        return wanted(value)

    return structure
