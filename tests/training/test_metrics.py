"""The lines of metrics.jsonl and timing.jsonl, which may come from someone else."""

import json
import shutil

import pytest

from curricula.errors import UserError
from curricula.training.metrics import (
    EpochMetrics,
    EpochTimes,
    EvaluationTime,
    PassCounts,
    forward_and_backward,
)
from curricula.training.run import METRICS, TIMING, Run

LINE = {
    "epoch": 1,
    "loss": 0.5,
    "train_accuracy": 0.25,
    "validation": {"clean": 0.75, "joint": 0.5},
    "strength": {"rot": 0.0, "rot.2": 1},
    "lr": 0.001,
    "passes": {"gradient": 500, "forward": 90, "training": 100},
    "best": True,
    "strong_accuracy": None,
    "zero_gradient": False,
    "findings": ["no gradient"],
}


def run_with(folder, *lines, file=METRICS):
    (folder / file).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return Run(folder)


def test_a_line_is_read_as_a_record(tmp_path):
    (found,) = run_with(tmp_path, LINE).metrics
    assert found == EpochMetrics(
        epoch=1,
        loss=0.5,
        train_accuracy=0.25,
        validation={"clean": 0.75, "joint": 0.5},
        strength={"rot": 0.0, "rot.2": 1.0},
        lr=0.001,
        passes=PassCounts(gradient=500, forward=90, training=100),
        best=True,
        findings=("no gradient",),
    )
    assert forward_and_backward([found, found]) == 1200
    assert found.passes.one_way is None  # the line is of a run that did not count its validation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 0}, "epoch must be 1 or more, not 0"),
        ({"epoch": 1.0}, "epoch must be a whole number, not 1.0"),
        ({"epoch": 2}, "epoch 2 is in the place of epoch 1"),
        ({"loss": None}, "loss must be a number, not None"),
        ({"loss": 1e300}, "loss must be at most 3.5e[+]38"),
        ({"loss": -(10**18) * 10**21}, "cannot be read|loss must be"),
        ({"train_accuracy": 1.5}, "train_accuracy must be at most 1, not 1.5"),
        ({"validation": {"clean": 0.5}}, "validation must have clean and joint"),
        ({"validation": {"clean": 0.5, "joint": 2}}, "validation must be at most 1, not 2"),
        ({"validation": [0.5, 0.5]}, r"validation must be an object, not \[0.5, 0.5\]"),
        ({"strength": {"rot": -0.5}}, "strength must be 0 or more, not -0.5"),
        ({"strength": {"rot": [1]}}, r"strength\['rot'\] must be a number, not \[1\]"),
        ({"lr": -1}, "lr must be 0 or more"),
        ({"passes": {"gradient": -5}}, "gradient must be 0 or more"),
        ({"passes": {"gradient": "5"}}, "passes.gradient must be a whole number, not '5'"),
        ({"best": 1}, "best must be true or false, not 1"),
        ({"best": False}, "the first epoch must be the best one so far"),
        ({"findings": ["a"]}, r"findings\[0\] must be catastrophic overfitting or .*, not 'a'"),
        ({"strong_accuracy": -1}, "strong_accuracy must be 0 or more"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(tmp_path, change, message):
    with pytest.raises(UserError, match=rf"metrics.jsonl: .*{message}.*restore it, or train again"):
        _ = run_with(tmp_path, LINE | change).metrics


@pytest.mark.parametrize("name", LINE)
def test_a_field_that_no_reader_can_do_without_is_missing(tmp_path, name):
    line = {key: value for key, value in LINE.items() if key != name}
    if name in ("strong_accuracy", "zero_gradient", "findings"):  # of the monitor, which is newer
        assert run_with(tmp_path, line).metrics
        return
    with pytest.raises(UserError, match=rf"\[0\].{name} is missing"):
        _ = run_with(tmp_path, line).metrics


def test_lines_that_contradict_each_other_are_refused(tmp_path):
    second = LINE | {"epoch": 2}
    for lines, message in (
        ([LINE, LINE], "epoch 1 is in the place of epoch 2"),
        ([second, LINE], "epoch 2 is in the place of epoch 1"),
        ([LINE, second | {"strength": {}}], "strength has different labels"),
    ):
        with pytest.raises(UserError, match=message):
            _ = run_with(tmp_path, *lines).metrics
    assert len(run_with(tmp_path, LINE, second).metrics) == 2


def test_times_are_those_of_epochs_and_of_the_evaluation(tmp_path):
    epoch = {"epoch": 1, "training_seconds": 2, "validation_seconds": 0.5}
    run = run_with(tmp_path, epoch, {"evaluation_seconds": 3.5}, file=TIMING)
    assert run.times == [
        EpochTimes(epoch=1, training_seconds=2.0, validation_seconds=0.5),
        EvaluationTime(evaluation_seconds=3.5),
    ]
    for line in (
        {},
        [],
        3,
        "epoch",
        None,
        epoch | {"training_seconds": 1e300},
        epoch | {"epoch": 3},
    ):
        with pytest.raises(UserError, match=r"timing.jsonl: not of the shape"):
            _ = run_with(tmp_path, line, file=TIMING).times


def test_epochs_are_cut_back_line_by_line_and_half_a_line_goes(tmp_path):
    lines = [LINE | {"epoch": epoch, "lr": epoch / 3} for epoch in (1, 2, 3)]
    times = [
        {"epoch": epoch, "training_seconds": 1.0, "validation_seconds": 1.0} for epoch in (1, 2, 3)
    ]
    run_with(tmp_path, *lines)
    run = run_with(tmp_path, *times, {"evaluation_seconds": 1.0}, file=TIMING)
    text = (tmp_path / METRICS).read_text()
    (tmp_path / METRICS).write_text(text + '{"epoch": 4, "lo')  # the disk was full
    run.keep_epochs(3)
    assert (tmp_path / METRICS).read_text() == text
    assert len(run.times) == 3  # the evaluation will be measured again
    run.keep_epochs(2)
    assert (tmp_path / METRICS).read_text() == "".join(text.splitlines(keepends=True)[:2])
    run.keep_epochs(0)
    assert (tmp_path / METRICS).read_text() == ""
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    run.keep_epochs(0)
    assert not list(tmp_path.iterdir())
