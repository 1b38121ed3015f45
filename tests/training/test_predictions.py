"""The predictions behind the results of a run, as its folder holds them."""

import json
import shutil

import numpy as np
import pytest
import torch

import curricula
from curricula.data.dataset import load_data
from curricula.errors import UserError
from curricula.evaluation.results import Evaluation, threat_result
from curricula.training.predictions import read_evaluation, write_evaluation
from curricula.training.run import PREDICTIONS, RESULTS, Run

FILE = PREDICTIONS["test"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished training; not to be changed."""
    return curricula.train(
        data="random(size=12, channels=1, images=20)",
        model="lenet",
        perturb="rot",
        epochs=1,
        batch_size=9,
        compile="off",
        output=tmp_path_factory.mktemp("predictions") / "run",
    )


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the run, to write into."""
    return Run(shutil.copytree(finished.run.path, tmp_path / "run"))


def change(run, edit):
    tensors, texts = run.load(FILE)
    edit(tensors, texts)
    run.save(FILE, tensors, texts)


def test_a_training_returns_and_stores_the_prediction_of_every_image(finished):
    found = finished.results
    assert isinstance(found, Evaluation)
    assert found == read_evaluation(finished.run, "test")
    assert found == finished.run.results("test")
    data = load_data(finished.run.config.data)
    assert found.labels.tolist() == data.test.labels.tolist()
    network = curricula.load_model(finished.run)
    with torch.no_grad():
        clean_N = network(data.images(data.test.load().pixels)).argmax(1)
    assert found.predictions["clean"].tolist() == clean_N.tolist()


def test_a_folder_of_an_earlier_version_has_no_predictions(copied):
    (copied.path / FILE).unlink()
    assert read_evaluation(copied, "test") is None
    assert len(copied.results("test")) == 4


def test_predictions_without_results_are_not_read(copied):
    (copied.path / RESULTS["test"]).unlink()
    assert read_evaluation(copied, "test") is None


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda tensors, _: tensors.pop("labels"), "labels"),
        (lambda tensors, _: tensors["labels"].add_(1).remainder_(10), "not those of the results"),
        (lambda tensors, _: tensors["predictions"].fill_(10), "must lie from 0 to 9, not from 10"),
        (lambda tensors, _: tensors["labels"].sub_(5), "must lie from 0 to 9, not from -5"),
        (
            lambda tensors, _: tensors.update(labels=tensors["labels"].double()),
            r"labels must be int32 of shape \(\d+,\), not float64",
        ),
        (
            lambda tensors, _: tensors.update(predictions=tensors["predictions"][1:]),
            r"predictions must be int32 of shape \(4, \d+\)",
        ),
        (lambda _, texts: texts.pop("classes"), "classes"),
        (lambda _, texts: texts.update(classes="[1]"), "must be text, not 1"),
        (lambda _, texts: texts.update(classes="[" * 10**5), "nested too deeply"),
    ],
)
def test_predictions_of_something_else_are_one_line(copied, edit, reason):
    change(copied, edit)
    with pytest.raises(UserError, match=rf"{FILE}: not of the shape .*{reason}.*delete it"):
        read_evaluation(copied, "test")


def test_damaged_predictions_are_one_line(copied):
    path = copied.path / FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(UserError, match=rf"{FILE}: damaged .*; delete it, and the page goes"):
        read_evaluation(copied, "test")


def test_classes_that_the_data_set_does_not_name_are_kept(copied):
    predicted_N = np.array([0, 6, 1])
    labels_N = np.array([0, 1, 1])
    result = threat_result("clean", "clean", predicted_N, clean_N=predicted_N, labels_N=labels_N)
    found = Evaluation(
        results=[result],
        labels=labels_N,
        predictions={"clean": predicted_N},
        classes=("cat", "dog"),
    )
    write_evaluation(copied, "test", found)
    read = read_evaluation(copied, "test")
    assert read.classes == ("cat", "dog", "2", "3", "4", "5", "6")
    assert read.predictions["clean"].tolist() == [0, 6, 1]
    assert [row["name"] for row in json.loads((copied.path / RESULTS["test"]).read_text())] == [
        "clean"
    ]
