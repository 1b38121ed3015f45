"""Results of an evaluation: counts, intervals, and no torch behind them."""

import csv
import doctest
import subprocess
import sys
from collections import Counter

import attrs
import numpy as np
import pytest

from curricula.errors import UserError
from curricula.evaluation import intervals, results
from curricula.evaluation.intervals import wilson_interval
from curricula.evaluation.results import Evaluation, threat_result
from curricula.runtime.records import to_json


@pytest.mark.parametrize("module", [results, intervals])
def test_the_examples_in_the_docstrings_hold(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


def test_results_and_the_frontier_are_read_without_torch():
    script = (
        "import sys, curricula.evaluation.results, curricula.evaluation.pareto; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def evaluation(classes=4, seed=0, names=("clean", "turned")):
    """An evaluation of random predictions, whose last class has no images."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, classes - 1, 60)
    predictions = {name: rng.integers(0, classes, 60) for name in names}
    return Evaluation(
        results=[
            threat_result(name, f"rot({i})", of_N, clean_N=predictions["clean"], labels_N=labels_N)
            for i, (name, of_N) in enumerate(predictions.items())
        ],
        labels=labels_N,
        predictions=predictions,
        classes=tuple(f"class {label}" for label in range(classes)),
    )


def test_an_evaluation_is_the_sequence_of_its_results():
    found = evaluation()
    assert len(found) == 2
    assert list(found) == [found[0], found["turned"]]
    assert found[-1].name == "turned"
    assert found[:1] == (found["clean"],)
    assert found == [found[0], found[1]]
    assert found != [found[0]]
    assert found == evaluation()
    assert found != evaluation(seed=1)
    assert str(found).splitlines() == [str(found[0]), str(found[1])]
    assert to_json(found) == to_json(list(found))
    with pytest.raises(UserError, match=r"no threat 'turnd'; did you mean turned\?"):
        found["turnd"]


def test_counts_by_class_are_those_of_a_loop_over_the_images():
    found = evaluation()
    for name in found.predictions:
        pairs = list(zip(found.labels.tolist(), found.predictions[name].tolist(), strict=True))
        confused = Counter(pairs)
        counts_KK = found.confusion(name)
        assert counts_KK.shape == (4, 4)
        assert {(i, j): counts_KK[i, j] for i in range(4) for j in range(4)} == {
            (i, j): confused[i, j] for i in range(4) for j in range(4)
        }
        by_class = found.per_class(name)
        assert [each.name for each in by_class] == ["class 0", "class 1", "class 2"]
        for each in by_class:
            assert each.n == sum(label == each.label for label, _ in pairs)
            assert each.correct == confused[each.label, each.label]
            assert each.interval == wilson_interval(each.correct, each.n)
        assert sum(each.correct for each in by_class) == found[name].correct


def test_predictions_beyond_the_named_classes_are_counted():
    labels_N, predicted_N = np.array([0, 1]), np.array([0, 6])
    result = threat_result("clean", "clean", predicted_N, clean_N=predicted_N, labels_N=labels_N)
    found = Evaluation(
        results=[result],
        labels=labels_N,
        predictions={"clean": predicted_N},
        classes=("cat", "dog"),
    )
    assert found.confusion("clean").shape == (7, 7)
    assert found.confusion("clean")[1, 6] == 1
    assert found.class_name(6) == "6"


def test_an_evaluation_refuses_predictions_of_other_images_or_threats():
    found = evaluation()
    with pytest.raises(ValueError, match="has 59 predictions for 60 images"):
        attrs.evolve(found, predictions={"clean": found.labels, "turned": found.labels[1:]})
    with pytest.raises(ValueError, match="must have the names of the results"):
        attrs.evolve(found, predictions={"clean": found.labels})


def test_a_data_frame_has_a_row_per_threat_class_or_image():
    pytest.importorskip("pandas")
    found = evaluation()
    frame = found.to_pandas()
    assert frame["accuracy"].tolist() == [each.accuracy for each in found]
    assert list(zip(frame["low"], frame["high"], strict=True)) == [each.interval for each in found]
    frame = found.to_pandas("class")
    assert len(frame) == 3 * 2
    counted = frame.groupby("threat")["correct"].sum()
    assert counted.to_dict() == {each.name: each.correct for each in found}
    frame = found.to_pandas("image")
    assert frame.columns.tolist() == [
        "label", "label_name", "clean", "clean_name", "turned", "turned_name",
    ]  # fmt: skip
    assert frame["turned"].tolist() == found.predictions["turned"].tolist()
    assert frame["turned_name"].tolist() == [f"class {label}" for label in frame["turned"]]
    with pytest.raises(UserError, match="per must be threat or row or class or image, not 'img'"):
        found.to_pandas("img")


def test_without_pandas_a_data_frame_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pip install pandas"):
        evaluation().to_pandas()


@pytest.mark.parametrize("names", [("label",), ("index",), ("a", "a_name"), ("label_name",)])
def test_threats_named_as_a_column_of_the_images_are_refused(names, tmp_path):
    found = evaluation(names=("clean", *names))
    with pytest.raises(UserError, match="give each threat another name"):
        found.save_predictions(tmp_path / "found.csv")
    assert not (tmp_path / "found.csv").exists()
    found.save_predictions(tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as read:
        assert read["threat"].tolist() == ["clean", *names]


def test_class_names_of_someone_else_are_escaped_in_a_notebook():
    found = attrs.evolve(
        evaluation(names=("clean", "<script>")),
        classes=("<b>", 'a,"b', "\u0000", "d"),
    )
    assert "<script>" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()


def test_names_with_commas_and_quotes_survive_a_csv_file(tmp_path):
    names = ("<b>", 'a,"b', "two\nlines", "犬")
    found = attrs.evolve(evaluation(), classes=names)
    found.save_predictions(tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["label_name"] for line in lines] == [names[label] for label in found.labels]
