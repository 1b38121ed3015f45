"""Names and texts from someone else are drawn and written as they are, whatever they hold."""

import shutil
import xml.etree.ElementTree
from html.parser import HTMLParser
from pathlib import Path

import attrs
import pytest
import torch
from matplotlib.text import Text

import curricula
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.robustness_profile import JointGrid, RobustnessProfile, Series
from curricula.plugins import registry
from curricula.reporting.figures import (
    MAX_NAMED,
    as_label,
    height_with_legend,
    plain_text,
    write_figure,
)
from curricula.reporting.page import Line, Section, Table, write_page
from curricula.reporting.pareto_figure import draw_frontier
from curricula.reporting.previews import preview_figure
from curricula.reporting.profiles import joint_figure, profile_figure
from curricula.reporting.report import report
from curricula.reporting.training import learning_figure, training_figure
from curricula.runtime.records import to_json
from curricula.sweeps.comparison import Comparison, Outcome, Row
from curricula.training.metrics import EpochMetrics, PassCounts
from curricula.training.run import Run

NAMES = [
    r"$\frac{$", r"$x^2$", r"\$", "$", "$$", "_x", "__", "", " ", "x" * 10_000, "ab " * 3000,
    "\x00\x01\x1b[2J", "a\nb\r\tc", "\ud800", "\u202eabc", "\N{SNOWMAN}漢字", "%s", "{}",
    "<script>alert(1)</script>", '"&<>\'', "\\", "r\\textbf{x}", "\N{COMBINING ACUTE ACCENT}" * 50,
]  # fmt: skip


def metrics(*labels):
    return [
        EpochMetrics(
            epoch=epoch,
            loss=loss,
            train_accuracy=0.5,
            validation={"clean": 0.5, "joint": 0.25},
            strength=dict.fromkeys(labels, 0.5),
            lr=0.1,
            passes=PassCounts(),
            best=True,
        )
        for epoch, loss in ((1, 3.4e38), (2, 0.5))
    ]


def result(name="a", correct=3, n=7):
    return ThreatResult(name=name, threat="rot", correct=correct, fooled=1, n=n)


def compared(*labels):
    rows = tuple(
        Row(
            label=label,
            outcomes=(
                Outcome(
                    folder=Path("run"),
                    seed=0,
                    configuration="{}",
                    results={
                        name: result(correct=min(number, 7)) for name in ("spatial", "adversarial")
                    },
                    images="images",
                    passes=1,
                    seconds=1.0,
                ),
            ),
        )
        for number, label in enumerate(labels)
    )
    return Comparison(rows=rows, threats={}, axes=("spatial", "adversarial"))


def profile(name):
    return RobustnessProfile(
        model=name,
        data=name,
        n=7,
        seed=0,
        budgets={"degrees": "30", "pixels": "3", "linf": "8/255"},
        clean=result(),
        series=(
            Series(name=name, unit="degrees", values=(0.0, 1.0), measured=(result(), result())),
            Series(name=name + "2", unit="degrees", values=(1e6,), measured=(result(),)),
        ),
        joint=JointGrid(degrees=(0.0,), linf=(0.0,), rows=((result(),),)),
        combined=(result(), result()),
    )


FIGURES = {
    "training": lambda name: training_figure(metrics(name, "rot")),
    "learning": lambda name: learning_figure(
        {name: [metrics(), metrics()[:1]], "rot": [metrics()]}
    ),
    "frontier": lambda name: draw_frontier(compared(name, "rot")),
    "axes": lambda name: draw_frontier(
        attrs.evolve(
            compared("a"),
            axes=(name, name),
            rows=(Row(label="a", outcomes=(outcome_under(name),)),),
        )
    ),
    "profile": lambda name: profile_figure(profile(name)),
    "joint": lambda name: joint_figure(profile(name)),
    "preview": lambda name: preview_figure(
        torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 1, 8, 8), headings=["strength 1"],
        names=[name], title=name[:300], caption=name[:300],
    ),
}  # fmt: skip


def outcome_under(name):
    (row,) = compared("a").rows
    return attrs.evolve(row.outcomes[0], results={name: result()})


WORST = "_$\\frac{$ \\$ \x00\x1b漢\ud800\n<b>" + "x" * 10_000


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_is_drawn_whatever_the_names(figure, tmp_path):
    for name in (WORST, ""):
        drawn = FIGURES[figure](name)
        with plain_text():  # as `write_figure`, for the ticks, which are made when they are read
            assert not any(text.get_parse_math() for text in drawn.findobj(Text))
        write_figure(drawn, tmp_path / "figure.svg")
        xml.etree.ElementTree.parse(tmp_path / "figure.svg")


def test_a_formula_is_drawn_as_it_is_written():
    (_, label), *_ = (
        (axes, text.get_text())
        for axes in learning_figure({r"$\frac{$": [metrics()]}).legends
        for text in axes.get_texts()
    )
    assert label == r"$\frac{$"


def test_labels_are_short_and_never_hidden():
    for name in NAMES:
        label = as_label(name)
        assert 1 <= len(label) <= 61
        assert label.isprintable()
        assert not label.startswith("_")
    assert as_label("a" * 100 + "b" * 100) == "a" * 30 + "…" + "b" * 29


def test_hundreds_of_rows_are_drawn_but_not_all_are_named():
    assert height_with_legend(4, 10**6) == height_with_legend(4, MAX_NAMED) < 12
    curves = {str(number): [metrics()] for number in range(MAX_NAMED + 5)}
    assert len(learning_figure(curves).legends[0].get_texts()) == MAX_NAMED


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(name for name, _ in attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from conftest import TINY

    registry.use(registry.build_registry([TINY]))
    path = tmp_path_factory.mktemp("reported") / "run"
    curricula.train(data="tiny", model="tinycnn(width=2)", perturb="rot", epochs=1, output=path)
    report(path)
    return path


@pytest.mark.parametrize("name", [*NAMES, '"><img src=x onerror=y>', "{{ 7 * 7 }}", "{% raw %}"])
def test_a_page_has_the_same_tags_whatever_the_texts(tmp_path, name):
    def tags_of(text):
        section = Section(
            title=text,
            text=text or "x",
            table=Table(header=[text, "b"], rows=[Line([text, text], failed=True)], texts=(1,)),
            values={text: text},
            missing={text: [text]},
        )
        path = write_page(tmp_path, title=text, subtitle=text, sections=[section])
        return Tags(path.read_text(encoding="utf-8"))

    found = tags_of(name)
    assert found.tags == tags_of("x").tags
    if name.isprintable() and "  " not in name:
        assert found.text.count(name) >= 8


def test_an_audit_and_results_are_text_too(folder, tiny, tmp_path):
    run = Run(shutil.copytree(folder, tmp_path / "run"))
    bad = '<b onclick="x">{{ 7 * 7 }}</b>'
    found = [attrs.evolve(each, name=bad + each.name, threat=bad) for each in run.results("test")]
    run.write_json("evaluation.json", to_json(found))
    run.write_json(
        "audit.json",
        {
            "eps": bad, "norm": "linf", "n": 5, "seed": 0, "left_out": [bad], "attacks": [],
            "checks": [{"name": bad, "passed": False, "finding": bad}],
        },
    )  # fmt: skip
    page = report(run.path).read_text(encoding="utf-8")
    tags = Tags(page)
    assert "b" not in {tag for tag, _ in tags.tags}
    assert tags.text.count("{{ 7 * 7 }}") >= 8
    assert all("onclick" not in attributes for _, attributes in tags.tags)
