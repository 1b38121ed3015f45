import doctest
from collections.abc import Mapping
from typing import Literal

import attrs
import pytest

from curricula.runtime import records


@attrs.frozen
class Inner:
    count: int = attrs.field(validator=attrs.validators.ge(0))


@attrs.frozen
class Outer:
    inner: Inner
    rows: tuple[tuple[Inner, ...], ...]
    ratio: float | None = None
    kind: Literal["a", "b"] = "a"
    shares: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def total(self):
        return self.inner.count + sum(one.count for row in self.rows for one in row)


records.register_json(Outer, lambda outer: {"total": outer.total, **records.fields_of(outer)})
OUTER = Outer(Inner(1), ((Inner(2), Inner(3)), ()))
WRITTEN = {
    "total": 6,
    "inner": {"count": 1},
    "rows": [[{"count": 2}, {"count": 3}], []],
    "ratio": None,
    "kind": "a",
    "shares": {},
}


def test_the_examples_in_the_docstrings_hold():
    found = doctest.testmod(records)
    assert found.attempted
    assert not found.failed


def test_a_registered_function_gives_the_keys_and_their_order_at_any_depth():
    assert records.to_json(OUTER) == WRITTEN
    assert list(records.to_json({"a": [OUTER]})["a"][0]) == list(WRITTEN)


def test_unknown_keys_are_ignored_when_read():
    assert records.from_json(Outer, WRITTEN) == OUTER


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"inner": []}, TypeError, r"inner must be an object, not \[\]"),
        ({"inner": {"count": 1.5}}, TypeError, r"inner.count must be a whole number, not 1.5"),
        ({"ratio": 10**400}, ValueError, r"ratio must be a number, not about 10\^400"),
        ({"inner": {}}, KeyError, "inner.count is missing"),
        ({"rows": [[{"count": 2}], "ab"]}, TypeError, r"rows\[1\] must be a list, not 'ab'"),
        ({"rows": {}}, TypeError, "rows must be a list"),
        ({"rows": [[{"count": -1}]]}, ValueError, r"rows\[0\]\[0\]: count must be 0 or more"),
        ({"ratio": "1"}, TypeError, "ratio must be a number, not '1'"),
        ({"ratio": True}, TypeError, "ratio must be a number, not True"),
        ({"kind": ["a"]}, TypeError, r"kind must be a or b, not \['a'\]"),
        ({"shares": [["a", 1.0]]}, TypeError, "shares must be an object"),
        ({"shares": {"a": None}}, TypeError, r"shares\['a'\] must be a number"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(changed, error, message):
    with pytest.raises(error, match=message):
        records.from_json(Outer, WRITTEN | changed)
