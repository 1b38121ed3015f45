import doctest

import attrs

from curricula.runtime import records


@attrs.frozen
class Inner:
    count: int


@attrs.frozen
class Outer:
    inner: Inner
    rows: tuple[tuple[Inner, ...], ...]
    ratio: float | None = None

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
