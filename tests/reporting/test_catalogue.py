"""The catalogue is current and complete, and reads docstrings and signatures correctly."""

import inspect
import re
from pathlib import Path
from typing import Literal

import attrs
import numpy as np
import pytest
from PIL import Image

from curricula.errors import UserError
from curricula.interfaces import NormBound
from curricula.perturbations.parametric import Parametric
from curricula.plugins import registry
from curricula.plugins.hookspecs import Record, hookimpl
from curricula.reporting import strips
from curricula.reporting.catalogue import (
    PROVIDERS,
    entries,
    entry,
    page,
    parse_docstring,
    parse_example,
    render,
)

PAGE = Path(__file__).parents[2] / "docs" / "catalogue.md"
MINE = registry.Provider(name="mine.py", source="file")
DOCUMENTED = ("perturbation", "model", "schedule", "objective", "dataset")
OURS = [
    registered
    for kind in DOCUMENTED
    for registered in registry.build_registry(entry_points=True).records(kind).values()
    if registered.provider.name in PROVIDERS
]


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m curricula.reporting.catalogue"
    )


@pytest.mark.parametrize("registered", OURS, ids=lambda one: f"{one.kind}-{one.record.name}")
def test_every_name_is_on_the_page_and_every_parameter_has_its_sentence(registered):
    name = registered.record.name
    (kind_title,) = (
        title
        for title in ("Perturbations", "Models", "Schedules", "Objectives", "Data sets")
        if title.lower().replace(" ", "").startswith(registered.kind)
    )
    text = PAGE.read_text(encoding="utf-8")
    (of_kind,) = re.findall(rf"^## {kind_title}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert f"| [`{name}`](#" in of_kind
    (section,) = re.findall(rf"^### {name}$(.*?)(?=^### |\Z)", of_kind, re.MULTILINE | re.DOTALL)
    assert section.strip().splitlines()[0], "a description"
    rows = dict(re.findall(r"^\| `\*?(\w+)` \|.*\| (.*) \|$", section, re.MULTILINE))
    supplied = {"num_classes", "in_channels", "image_size", "fetch", "root", "download"}
    taken = set(inspect.signature(registered.load()).parameters)
    assert set(rows) == taken - supplied
    assert not [name for name, sentence in rows.items() if not sentence.strip()]


def test_every_perturbation_has_a_small_strip_of_pictures():
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"!\[(.+) at growing strengths\]\((catalogue/(.+)\.png)\)", text)
    ours = [one.record.name for one in OURS if one.kind == "perturbation"]
    of_colours = [f"torchattacks-{name}" for name in ("tifgsm", "pifgsm", "pifgsmpp")]
    assert [name for _, _, name in named] == [name for name in ours if name not in of_colours]
    for expression, path, name in named:
        assert expression.startswith(f"{name}:")
        picture = (PAGE.parent / path).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 10_000


def test_links_of_the_page_lead_to_its_headings():
    text = PAGE.read_text(encoding="utf-8")
    slugs = [heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)]
    for target in re.findall(r"\]\(#([^)]+)\)", text):
        assert target in slugs or re.sub(r"-\d+$", "", target) in slugs


def test_a_third_party_plugin_does_not_change_the_page(tmp_path, monkeypatch):
    (tmp_path / "strange.py").write_text(
        "from curricula import Record, hookimpl\n"
        "@hookimpl\n"
        "def curricula_schedules():\n"
        "    yield Record(name='strange', factory=lambda: None, summary='strange')\n"
    )
    info = tmp_path / "strange-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[curricula]\nstrange = strange\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "strange" in registry.build_registry().records("schedule")
    assert page() == PAGE.read_text(encoding="utf-8")


def test_a_missing_distribution_of_ours_is_an_error_not_a_shorter_page(monkeypatch):
    monkeypatch.setattr(registry, "_entry_points", list)
    with pytest.raises(
        UserError, match=r"needs curricula-torchattacks, .*, curricula-escnn, curricula-timm: in"
    ):
        page()


DOCSTRING = """What it does, over
    two lines: ``code``.

    Its source (Somebody 2020).

    - a list
      of one

    Args:
        first: one line.
        second (int, optional): two lines, of which
            the other: with a colon.
        *rest: many

            and a paragraph.
        **more: others.

    Raises:
        ValueError: not a parameter.

    Example:
        Text.

        >>> 1 + 1
        2
    """


def test_docstrings_are_read_in_googles_style():
    description, sentences = parse_docstring(DOCSTRING)
    assert description == (
        "What it does, over two lines: ``code``.\n\nIts source (Somebody 2020).\n\n"
        "- a list\n  of one"
    )
    assert sentences == {
        "first": "one line.",
        "second": "two lines, of which the other: with a colon.",
        "rest": "many and a paragraph.",
        "more": "others.",
    }
    assert parse_example(DOCSTRING) == "Text.\n\n>>> 1 + 1\n2"
    assert parse_docstring("") == ("", {})
    assert parse_example("") == ""
    assert parse_docstring("Args:\n    x: y.\n\nAfter: words.") == ("", {"x": "y."})


@attrs.frozen(kw_only=True)
class Smudge(Parametric):
    """A smudge | 2*3*4 <b>.

    Args:
        budget: how much.
        norm: which.
        share: of it, or none.
    """

    kind = "intensity"
    channels = frozenset({3, 1})
    training_only = True

    budget: int = attrs.field(validator=attrs.validators.le(5))
    norm: Literal["linf", "l2"] = "linf"
    share: float | None = None
    level: float = 8 / 255
    loud: bool = False
    shape: str = "round"
    size: float = attrs.field(init=True)

    @size.default
    def _size(self):
        return self.budget / 2

    @property
    def unit(self):
        return self.norm

    @property
    def norm_bound(self):
        return NormBound(norm="l2", radius=2 * self.budget)


def smudge(kind="perturbation", name="smudge", factory=Smudge):
    record = Record(name=name, factory=factory, summary="smudges | smears")
    return registry.Registered(kind=kind, record=record, provider=MINE)


def test_an_entry_says_types_defaults_and_what_is_declared_in_words():
    found = entry(smudge())
    assert [(one.name, one.type, one.default, one.sentence) for one in found.parameters] == [
        ("budget", "whole number", "the data set's", "how much."),
        ("norm", "`linf`, `l2`", "`linf`", "which."),
        ("share", "number", "none", "of it, or none."),
        ("level", "number", "`8/255`", ""),
        ("loud", "true or false", "`false`", ""),
        ("shape", "name or text in quotes", "`round`", ""),
        ("size", "number", "from the others", ""),
    ]
    assert found.facts == {
        "kind": "`intensity`",
        "unit": "`linf`, `l2` with `norm=l2`",
        "norm bound": "no image changes by more than a radius that follows from the budget times "
        "the strength, in `l2`",
        "channels": "1 or 3",
        "use": "for training only, not as a threat",
    }


def test_markdown_in_docstrings_is_escaped():
    text = render([entry(smudge())])
    assert "A smudge | 2\\*3\\*4 \\<b>." in text
    assert "| [`smudge`](#smudge) | smudges \\| smears | mine.py |" in text


def test_a_name_of_two_kinds_has_two_anchors():
    def linear(width, num_classes, *pairs: tuple[float, float], **more):
        """Linear."""

    text = render(
        [entry(smudge("schedule", "linear", linear)), entry(smudge("model", "linear", linear))]
    )
    assert "(#linear)" in text
    assert "(#linear-1)" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows[0] == "| `width` | anything | required |  |"
    assert rows[2] == "| `*pairs` | `NUMBER:NUMBER`, any number of them | none |  |"
    assert [row.split()[1] for row in rows] == [
        "`width`", "`num_classes`", "`*pairs`", "`width`", "`*pairs`",
    ]  # fmt: skip


def test_all_records_of_a_registry_are_entries_by_default():
    known = registry.build_registry(entry_points=False)

    class Mine:
        @hookimpl
        def curricula_perturbations(self):
            yield smudge().record

    known.add(Mine(), MINE)
    names = [each.name for each in entries(known)]
    assert "smudge" in names
    assert "train" not in names
    assert "smudge" not in [each.name for each in entries(known, ["curricula"])]


def test_a_strip_shows_the_original_and_four_strengths(tmp_path, monkeypatch):
    monkeypatch.setattr(strips, "TARGET", {**strips.TARGET, "model": "lenet", "epochs": 1})
    strips.write_strips({"roll": "roll:4", "hue": "hue:0.5"}, tmp_path)
    for name, mode, side in (("roll", "L", 28), ("hue", "RGB", strips.COLOUR_SIDE)):
        with Image.open(tmp_path / f"{name}.png") as picture:
            width, height = picture.size
            pixels = np.asarray(picture.convert(mode))
        assert (width, height) == (5 * side * strips.ZOOM + 4 * strips.GAP, side * strips.ZOOM)
        first = pixels[:, : side * strips.ZOOM]
        last = pixels[:, -side * strips.ZOOM :]
        assert not np.array_equal(first, last)
