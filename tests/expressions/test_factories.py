"""Calls of factories: arguments converted by annotation, or as written where there is none."""

import math
from pathlib import Path
from typing import Literal

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
        ("f('3', word='true')", ("3", "true", ())),
    ],
)
def test_a_factory_without_annotations_gets_its_arguments_as_written(text, expected):
    assert call_factory(without_annotations, "schedule", parse_call(text)).value == expected


@attrs.frozen(kw_only=True)
class Haze:
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
        call_factory(Haze, "perturbation", parse_call(f"haze({arguments})"))
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


@attrs.frozen(kw_only=True)
class Weights:
    """Texts, paths and choices."""

    name: str = "resnet10t.c3_in1k"
    path: Path = Path("my nets/a.pt")
    source: str | None = None
    form: Literal["none", "pt"] = "none"
    tag: str = "none"
    other: str | None = "none"


DEFAULTS = 'w(name="resnet10t.c3_in1k", path="my nets/a.pt", form=none, tag=none, other="none")'


@pytest.mark.parametrize(
    ("text", "printed", "expected"),
    [
        ("w", DEFAULTS, Weights()),
        ("w(source=none)", DEFAULTS.replace("form", "source=none, form"), Weights()),
        ("w('resnet18')", DEFAULTS.replace('"resnet10t.c3_in1k"', "resnet18"), None),
        ("w(resnet18)", DEFAULTS.replace('"resnet10t.c3_in1k"', "resnet18"), None),
        ("w(path='b.pt')", DEFAULTS.replace("my nets/a.pt", "b.pt"), Weights(path=Path("b.pt"))),
        ("w(path=nets)", DEFAULTS.replace('"my nets/a.pt"', "nets"), Weights(path=Path("nets"))),
        ("w(form='pt')", DEFAULTS.replace("form=none", "form=pt"), Weights(form="pt")),
        ("w(source='none')", DEFAULTS.replace("form", 'source="none", form'),
         Weights(source="none")),
        ("w(other=none)", DEFAULTS.replace('"none"', "none"), Weights(other=None)),
        ("w(tag='8/255')", DEFAULTS.replace("tag=none", 'tag="8/255"'), Weights(tag="8/255")),
    ],
)  # fmt: skip
def test_a_quoted_text_is_a_text_a_path_or_a_choice(text, printed, expected):
    built = call_factory(Weights, "model", parse_call(text))
    assert str(built.call) == printed
    assert expected is None or built.value == expected
    again = call_factory(Weights, "model", parse_call(printed))
    assert again == built


@pytest.mark.parametrize("name", ["two\nlines", "\udcff", "a" * 4097])
def test_a_default_that_cannot_be_written_is_left_out(name):
    def factory(name: str = name, size: int = 3): ...

    assert str(call_factory(factory, "model", parse_call("f")).call) == "f(size=3)"


@pytest.mark.parametrize("name", ["true", "a" * 101, "3", "", "a-", 'it\'s "ours"', "C:\\nets"])
@pytest.mark.parametrize("hint", [None, str])
def test_a_default_prints_as_a_text_that_means_it(name, hint):
    def factory(name=name):
        return name

    factory.__annotations__ = {"name": hint} if hint else {}
    built = call_factory(factory, "model", parse_call("f"))
    again = call_factory(factory, "model", parse_call(str(built.call)))
    assert built.value == again.value == name
    assert str(again.call) == str(built.call)
    assert "name=" in str(built.call)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("3", "name must be a name or a text in quotes, not 3"),
        ("nets/a", "name must be a name or a text in quotes, not nets/a"),
        ("path=8/255", "path must be a path in quotes, not 8/255"),
        ("form='pth'", 'form must be none or pt, not "pth"'),
        ("source=1:2", "source must be a name or a text in quotes or none, not 1:2"),
    ],
)
def test_a_wrong_value_for_a_text_is_one_line(arguments, message):
    with pytest.raises(UserError) as caught:
        call_factory(Weights, "model", parse_call(f"w({arguments})"))
    assert str(caught.value) == f"{parse_call(f'w({arguments})')}: {message}"


def test_a_quoted_text_is_neither_number_nor_flag():
    for text in ("pgd('8/255')", "rot(30, padding='3')", "pgd(0.1, random_start='true')"):
        with pytest.raises(UserError, match="must be"):
            build("perturbation", parse_call(text))
