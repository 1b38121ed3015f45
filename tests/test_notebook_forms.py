"""Short reprs, escaped HTML and data frames of the library's objects, for notebooks."""

from html.parser import HTMLParser

import attrs
import pytest
import torch
from evaluation.test_records import AUDIT, PROFILE

import curricula
from curricula import Curriculum, Threat
from curricula.data.dataset import load_data

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training with its baseline, in a folder with an evil name."""
    return curricula.train(
        data="random(size=12, channels=1, images=20)",
        model="lenet",
        perturb="rot+fgsm:0.1",
        epochs=2,
        batch_size=9,
        compile="off",
        baseline=True,
        output=tmp_path_factory.mktemp("forms") / "<b>run",
    )


@pytest.fixture(scope="module")
def objects(trained):
    data = load_data("digits")
    return {
        "data": attrs.evolve(data, name=EVIL, classes=(EVIL, *data.classes[1:])),
        "split": data.train,
        "threat": Threat.parse("rot:30+pgd:0.1", strength=0.5),
        "curriculum": Curriculum.parse("rot:30+pgd:0.1", "cosine"),
        "trained": trained,
        "run": trained.run,
        "evaluation": trained.results,
        "profile": attrs.evolve(PROFILE, model=EVIL),
        "audit": attrs.evolve(AUDIT, left_out=(EVIL,)),
        "comparison": curricula.compare([trained.run.path, trained.baseline.run.path]),
    }


NAMES = (
    "data", "split", "threat", "curriculum", "trained", "run", "evaluation", "profile", "audit",
    "comparison",
)  # fmt: skip


class Tags(HTMLParser):
    """Collect the tags of some HTML, and check that each is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.cells = [], set(), []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.found.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells.append(data)


@pytest.mark.parametrize("name", NAMES)
def test_a_repr_is_one_short_line(objects, name):
    text = repr(objects[name])
    assert len(text) < 450, text
    assert "\n" not in text
    assert "tensor(" not in text


@pytest.mark.parametrize("name", [name for name in NAMES if name != "split"])
def test_html_is_a_table_in_which_every_text_is_escaped(objects, name):
    text = objects[name]._repr_html_()
    assert Tags(text).found <= {"b", "table", "thead", "tbody", "tr", "th", "td", "small"}
    assert len(text) < 5000


def test_reprs_say_what_matters(objects, trained):
    assert "1,297 training images, 500 test images, 10 classes, 1x28x28" in repr(objects["data"])
    assert repr(objects["split"]) == "Split(1,297 images, 1x8x8)"
    accuracy = f"joint {100 * trained.results['joint'].accuracy:.1f} %"
    assert accuracy in repr(trained)
    assert "with a baseline" in repr(trained)
    assert "1 of 2 checks passed, not plateau" in repr(objects["audit"])
    assert repr(trained.run) == f"Run({str(trained.run.path)!r})"


@pytest.mark.parametrize("name", ["threat", "curriculum"])
def test_the_repr_of_an_expression_makes_an_equal_object(objects, name):
    again = eval(repr(objects[name]), {"Threat": Threat, "Curriculum": Curriculum})
    assert repr(again) == repr(objects[name])
    assert str(again) == str(objects[name])


def test_the_table_of_a_training_has_its_baseline(trained):
    cells = Tags(trained._repr_html_()).cells
    assert "baseline" in cells
    row = cells[cells.index("clean") :][:3]
    for text, results in zip(row[1:], (trained.results, trained.baseline.results), strict=True):
        assert text.startswith(f"{100 * results[0].accuracy:.1f} (")


def test_a_damaged_run_is_shown_as_such(trained, tmp_path):
    (tmp_path / "config.toml").write_text("<script>")
    (tmp_path / "metrics.jsonl").write_text("[]\n")
    run = curricula.Run.open(tmp_path)
    text = run._repr_html_()
    assert "damaged" in text
    assert "<script>" not in text


def test_a_measured_model_is_shown_without_a_training(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28, 10))
    curricula.evaluate(model, "digits", ["clean"], limit=5, output=tmp_path / "model")
    run = curricula.Run.open(tmp_path / "model")
    cells = Tags(run._repr_html_()).cells
    assert {"data", "model", "clean"} <= set(cells)
    assert "epochs done" not in cells


def test_the_metrics_of_a_run_are_a_data_frame_with_a_row_per_epoch(trained):
    pytest.importorskip("pandas")
    frame = trained.run.to_pandas()
    metrics = trained.run.metrics
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["loss"].tolist() == [line.loss for line in metrics]
    assert frame["validation_joint"].tolist() == [line.validation["joint"] for line in metrics]
    assert frame["strength_rot"].tolist() == [line.strength["rot"] for line in metrics]
    assert frame["passes_training"].tolist() == [line.passes.training for line in metrics]


def test_a_profile_is_a_data_frame_with_a_row_per_result():
    pytest.importorskip("pandas")
    frame = PROFILE.to_pandas()
    assert frame["series"].tolist() == [
        "clean", *["random"] * 2, *["joint"] * 4, *["at the budgets"] * 2,
    ]  # fmt: skip
    joint = frame[frame["series"] == "joint"]
    assert list(zip(joint["degrees"], joint["linf"], joint["correct"], strict=True)) == [
        (0.0, 0.0, 7), (30.0, 0.0, 5), (0.0, 0.1, 3), (30.0, 0.1, 0),
    ]  # fmt: skip
    assert frame[frame["series"] == "at the budgets"]["linf"].isna().all()


def test_a_comparison_is_a_data_frame_with_a_row_per_row(objects):
    pytest.importorskip("pandas")
    frame = objects["comparison"].to_pandas()
    assert frame.to_dict("records")[0]["joint"] == objects["comparison"].rows[0].mean("joint")
    assert len(frame) == 2


def test_an_evaluation_of_a_tensor_model_shows_no_tensors():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28, 10))
    found = curricula.evaluate(model, data="digits", threats=["clean"], limit=5)
    assert "array" not in repr(found)
