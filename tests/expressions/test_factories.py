"""Calls of factories: arguments converted by annotation, or as written where there is none."""

import pytest

from curricula.expressions.factories import call_factory
from curricula.expressions.syntax import parse_call


def without_annotations(number, word="none", *stages):
    return number, word, stages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f(2)", (2, "none", ())),
        ("f(1/4, word=true)", (0.25, True, ())),
        ("f(number=3, word=bilinear)", (3, "bilinear", ())),
    ],
)
def test_a_factory_without_annotations_gets_its_arguments_as_written(text, expected):
    assert call_factory(without_annotations, "schedule", parse_call(text)).value == expected
