"""Calls of factories: arguments converted by annotation, or as written where there is none."""

import math

import attrs
import pytest
from attrs.validators import and_, ge, gt, in_, le, lt

from curricula.errors import UserError
from curricula.expressions.factories import build, call_factory
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


@attrs.frozen(kw_only=True)
class Fog:
    """A class as a plugin writes it, checked by the validators of attrs."""

    budget: float = attrs.field(default=0.5, validator=[ge(0), le(180.0)])
    size: float = attrs.field(default=1.0, validator=and_(gt(0.0), lt(math.inf)))
    share: float = attrs.field(default=0.0, validator=lt(0.25))
    word: str = attrs.field(default="soft", validator=in_(("soft", "hard")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-1", "budget must be 0 or more, not -1"),
        ("181", "budget must be at most 180, not 181"),
        ("size=0", "size must be above 0, not 0"),
        ("share=1/3", "share must be below 0.25, not 0.333"),
        ("word=sofd", "word must be soft or hard, not sofd"),
    ],
)
def test_a_validator_of_attrs_is_reported_in_plain_words(arguments, message):
    with pytest.raises(UserError) as caught:
        call_factory(Fog, "perturbation", parse_call(f"fog({arguments})"))
    assert message in str(caught.value)
    assert "'" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "end"),
    [
        ("perturbation", "pgd(0.1, stesp=3)", "; did you mean step or steps or rel_step?"),
        ("perturbation", "rot(30, paddign=zeros)", "; did you mean padding?"),
        ("schedule", "linear(untill=0.2)", "takes start, until; did you mean until?"),
        ("objective", "trades(bta=6)", "objective 'trades' takes beta; did you mean beta?"),
        ("model", "wrn(dept=16)", "takes depth, width, dropout; did you mean depth?"),
        ("dataset", "random(chanels=1)", "; did you mean channels?"),
        (
            "schedule",
            "step(stage=1)",
            "schedule 'step' takes stages, start, until, count; did you mean start?",
        ),
    ],
)
def test_a_misspelt_keyword_gets_a_suggestion(kind, text, end):
    supplied = dict.fromkeys(("num_classes", "in_channels", "image_size", "root", "download"))
    with pytest.raises(UserError) as caught:
        build(kind, parse_call(text), supplied=supplied)
    assert str(caught.value).endswith(end)


@pytest.mark.parametrize("factory", [dict, 3])
def test_a_factory_without_a_signature_is_one_line(factory):
    with pytest.raises(UserError, match=r"callback 'odd': the parameters of its factory cannot be"):
        call_factory(factory, "callback", parse_call("odd(a=1)"))
