"""Searches: their folders, pruning, and that an interrupted one ends like an uninterrupted one."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal

import pytest
from cli.test_cli import TINY, run
from fixtures.sweeping import search_and_report

import curricula
from curricula.errors import UserError
from curricula.evaluation.pareto import on_frontier
from curricula.plugins import registry
from curricula.reporting.pareto_figure import draw_frontier
from curricula.reporting.report import report
from curricula.sweeps import pruning
from curricula.sweeps.folder import sweep_in
from curricula.sweeps.pruning import Pruner
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.search import run_search
from curricula.sweeps.search_spec import parse_search
from curricula.sweeps.spec import parse_sweep

pytestmark = pytest.mark.usefixtures("tiny")
# Processes are forked from one that has imported what a search needs, and has run nothing.
PROCESSES = multiprocessing.get_context("forkserver")

QUICK = """
[base]
data = "tiny"
perturb = "rot:30"
schedule = ["linear(until={end})"]
epochs = 1
compile = "off"

[ranges]
lr = { low = 0.001, high = 0.1, log = true }
end = { low = 0.05, high = 0.95 }

[search]
trials = 5
objectives = ["clean", "turned"]

[evaluation.threats]
clean = "clean"
turned = "rot:60"
"""
# One of two learning rates learns nothing.
PRUNED = """
[base]
data = "tiny"
model = "tinycnn(dropout=0.1)"
perturb = "rot+pgd"
epochs = 4
compile = "off"

[ranges]
lr = [0.01, 1e-9]
batch_size = { low = 20, high = 40 }

[search]
trials = 6
seed = 3
prune = true

[evaluation]
limit = 20
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of the quick search, run once without an interruption; not to be changed."""
    registry.use(registry.build_registry([TINY]))
    out = tmp_path_factory.mktemp("searches") / "out"
    run_search(parse_search(QUICK), out)
    return out


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """Folder of the search that prunes; not to be changed."""
    registry.use(registry.build_registry([TINY]))
    out = tmp_path_factory.mktemp("pruned") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(pruning, "MIN_FINISHED", 1)
        run_search(parse_search(PRUNED), out)
    return out


class _Killed(KeyboardInterrupt):
    pass


def contents(folder):
    """Trials of a search, and how each ended, without the times."""
    names = ("metrics.jsonl", "validation.json", "pruned.json", "intermediate.json", "failed.json")
    files = {
        str(path.relative_to(folder)): path.read_text()
        for name in names
        for path in folder.glob(f"cells/*/{name}")
    }
    return json.loads((folder / "trials.json").read_text()), files


def started(text, out):
    """Return a process that runs a search, and the connection that yields its messages."""
    PROCESSES.set_forkserver_preload(["torch", "curricula.api.training", "curricula.sweeps.search"])
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=search_and_report, args=(TINY, text, out, theirs))
    process.start()
    theirs.close()
    return process, ours


def test_a_search_is_a_sweep_whose_frontier_is_that_of_its_trials(finished):
    trials, _ = contents(finished)
    compared = curricula.compare(finished)
    assert [row.label for row in compared.rows] == [
        f"{number} lr={trial['lr']}, end={trial['end']}"
        for number, trial in enumerate(trials, start=1)
    ]
    assert compared.axes == ("clean", "turned")
    points = [(row.mean("clean"), row.mean("turned")) for row in compared.rows]
    assert compared.on_frontier == on_frontier(points)
    for row, trial in zip(compared.rows, trials, strict=True):
        (outcome,) = row.outcomes
        config = curricula.Run(outcome.folder).config
        assert (config.lr, config.schedule) == (
            trial["lr"],
            (f"rot=linear(start=0, until={trial['end']})",),
        )
        assert outcome.images == "validation images of tiny"
    assert sweep_in(finished).split == "validation"
    assert not list(finished.glob("cells/*/evaluation.json"))


def test_figures_name_trials_by_their_numbers_unless_two_searches_are_compared(finished, tmp_path):
    figure = draw_frontier(curricula.compare(finished))
    entries = [*figure.axes[0].texts, *(text for one in figure.legends for text in one.texts)]
    assert sorted(text.get_text() for text in entries) == list("12345")
    other = tmp_path / "other"
    run_search(parse_search(QUICK.replace("trials = 5", "trials = 2\nseed = 9")), other)
    compared = curricula.compare([finished, other])
    assert [row.name for row in compared.rows][2:5] == ["3", "4", "5"]
    assert all(row.name == row.label for row in [*compared.rows[:2], *compared.rows[5:]])


def test_a_search_that_is_done_does_nothing_when_started_again(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("cells/*/*")}
    lines = []
    run_search(parse_search(QUICK), finished, on_message=lines.append)
    assert {path: path.stat().st_mtime_ns for path in finished.glob("cells/*/*")} == before
    assert lines == [f"{finished}: 5 trials done, 0 to run"]


def test_a_search_does_not_go_on_with_other_images(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    file = next((tmp_path / "out").glob("cells/*/data.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"train": "of other files"}))
    with pytest.raises(UserError, match=r"trial .* \(its images\) has changed"):
        run_search(parse_search(QUICK), tmp_path / "out")


def test_more_trials_continue_a_search(finished, tmp_path):
    out = tmp_path / "out"
    run_search(parse_search(QUICK.replace("trials = 5", "trials = 3")), out)
    assert len(contents(out)[0]) == 3
    run_search(parse_search(QUICK), out)
    assert contents(out) == contents(finished)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_killed_search_that_is_started_again_has_the_trials_of_an_uninterrupted_one(
    tmp_path, sampler
):
    text = QUICK.replace("[search]", f'[search]\nsampler = "{sampler}"')
    run_search(parse_search(text), tmp_path / "whole")
    out = tmp_path / "killed"
    process, ours = started(text, out)
    while not ours.recv().startswith("3 "):
        pass
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    run_search(parse_search(text), out)
    assert contents(out) == contents(tmp_path / "whole")


def test_two_processes_share_the_trials_and_run_none_twice(tmp_path):
    out = tmp_path / "out"
    both = [started(QUICK, out), started(QUICK, out)]
    begun = []
    for process, messages in both:
        with contextlib.suppress(EOFError):
            while True:
                begun.append(messages.recv())
        process.join(60)
        assert process.exitcode == 0
    assert sorted(line[0] for line in begun if line.endswith(": begins")) == list("12345")
    compared = curricula.compare(out)
    assert len(compared.rows) == 5
    assert not compared.unfinished


def test_poor_trials_are_ended_and_marked_in_every_table(pruned):
    compared = curricula.compare(pruned)
    trials, _ = contents(pruned)
    assert compared.pruned
    for one in compared.pruned:
        number = int(one.label.split()[0])
        assert trials[number - 1]["lr"] == "1e-09"
        assert 2 <= one.epoch < one.epochs == 4
    assert len(compared.rows) + len(compared.pruned) == 6
    assert not compared.failures
    assert not compared.pending
    shown = [line for line in run("compare", pruned).output.splitlines() if "pruned after" in line]
    assert len(shown) == len(compared.pruned)
    assert not any("*" in line for line in shown)
    markdown = run("compare", pruned, "--format", "markdown").output
    assert markdown.count("(pruned after epoch") == len(compared.pruned)
    records = json.loads(run("compare", pruned, "--format", "json").output)["pruned"]
    assert [record["label"] for record in records] == [one.label for one in compared.pruned]
    page = report(pruned).read_text()
    assert page.count("(pruned after epoch") == len(compared.pruned)
    assert "Search out" in page
    assert "range batch_size" in page


def test_pruning_ends_a_training_and_changes_none(pruned, tmp_path):
    """A trial that was measured after each epoch is, bit for bit, the training on its own."""
    for folder in pruned.glob("cells/*"):
        if (folder / "validation.json").exists() and (folder / "intermediate.json").exists():
            break
    done = run("train", "--config", folder / "config.toml", "-o", tmp_path / "alone")
    assert done.exit_code == 0, done.output
    alone, searched = (path / "metrics.jsonl" for path in (tmp_path / "alone", folder))
    assert alone.read_text() == searched.read_text()


def test_a_search_killed_while_it_measures_or_before_it_says_pruned_ends_the_same(
    pruned, tmp_path, monkeypatch
):
    """Unlike an error of a callback, what is raised here saves nothing."""
    monkeypatch.setattr(pruning, "MIN_FINISHED", 1)
    accuracies, count = Pruner._accuracies, 0

    def killed(pruner):
        nonlocal count
        count += 1
        if count % 2:
            raise _Killed
        return accuracies(pruner)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Pruner, "_accuracies", killed)
        for _ in range(30):
            try:
                run_search(parse_search(PRUNED), out)
                break
            except _Killed:
                continue
    assert count > 10
    assert contents(out) == contents(pruned)
    for file in out.glob("cells/*/pruned.json"):
        file.unlink()
    run_search(parse_search(PRUNED), out)
    assert contents(out) == contents(pruned)


def test_a_trial_that_fails_is_kept_with_its_reason_and_the_rest_is_run(tmp_path):
    text = QUICK.replace("{ low = 0.001, high = 0.1, log = true }", "[0.01, 1e34]")
    text = text.replace("trials = 5", "trials = 5\nseed = 1")
    (tmp_path / "search.toml").write_text(text)
    out = tmp_path / "out"
    done = run("search", tmp_path / "search.toml", "-o", out)
    assert done.exit_code == 1, done.output
    assert "failed: the" in done.output
    compared = curricula.compare(out)
    assert compared.rows
    assert compared.failures
    assert all("lr=1e_34" in failure or "lr=1e+34" in failure for failure in compared.failures)
    assert len(compared.rows) + len(compared.failures) == 5
    before = contents(out)
    again = run("search", tmp_path / "search.toml", "-o", out)
    assert ": begins" not in again.output
    retried = run("search", tmp_path / "search.toml", "-o", out, "--retry")
    assert retried.output.count(": begins") == len(compared.failures)
    assert contents(out) == before


def test_the_command_prints_the_commands_that_measure_the_frontier(finished, tmp_path):
    (tmp_path / "search.toml").write_text(QUICK)
    done = run("search", tmp_path / "search.toml", "-o", finished)
    assert done.exit_code == 0, done.output
    compared = curricula.compare(finished)
    commands = [line for line in done.output.splitlines() if " evaluate " in line]
    assert len(commands) == sum(compared.on_frontier)
    assert all("--threat clean --threat rot:60" in line for line in commands)


@pytest.mark.parametrize(
    ("old", "new", "section"),
    [
        ("high = 0.95", "high = 0.9", "ranges"),
        ("epochs = 1", "epochs = 2", "base"),
        ("trials = 5", "trials = 5\nseed = 1", "search"),
        ("trials = 5", "trials = 5\nprune = true", "search"),
        ("rot:60", "rot:45", "evaluation"),
    ],
)
def test_a_folder_of_another_search_is_refused(finished, old, new, section):
    changed = parse_search(QUICK.replace(old, new))
    with pytest.raises(
        UserError, match=rf"holds another search: \[{section}\] has changed; choose"
    ):
        run_search(changed, finished)


def test_a_run_a_sweep_and_a_search_do_not_share_a_folder(finished, tmp_path):
    cell = next(finished.glob("cells/1*"), None) or next(finished.glob("cells/trial*"))
    with pytest.raises(UserError, match="holds a run: choose another output"):
        run_search(parse_search(QUICK), cell)
    sweep = parse_sweep(
        '[base]\ndata = "tiny"\nepochs = 1\nperturb = "clean"\n[axes]\nseed = [0]\n'
    )
    for one in (sweep, sweep_in(finished)):
        with pytest.raises(UserError, match="holds a search: choose another output"):
            run_sweep(one, finished)
    (tmp_path / "sweep.toml").write_text(sweep.as_toml())
    with pytest.raises(UserError, match="holds a sweep: choose another output"):
        run_search(parse_search(QUICK), tmp_path)


def test_trials_measured_under_different_threats_are_refused_before_writing(tmp_path):
    text = QUICK.partition("[evaluation.threats]")[0].replace('"turned"', '"spatial"')
    text = text.replace("rot:30", "rot:{angle}").replace(
        "[ranges]", "[ranges]\nangle = { low = 10, high = 20 }"
    )
    with pytest.raises(
        UserError, match=r"different threats.*name them under \[evaluation.threats\]"
    ):
        run_search(parse_search(text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["", "[", "{}", "[{}]", "[3]", '[{"lr": 1.0, "end": 0.1}]', "\0", "[NaN]"]
)
def test_damaged_trials_are_one_line(tmp_path, text):
    search = parse_search(QUICK)
    (tmp_path / "search.toml").write_text(search.as_toml())
    (tmp_path / "trials.json").write_text(text)
    with pytest.raises(UserError, match=r"trials.json: cannot be read \(.*\); restore it, or"):
        run_search(search, tmp_path)


def test_a_link_in_the_place_of_a_file_of_a_search_is_not_written_through(tmp_path):
    (tmp_path / "outside").write_text("kept")
    for name in ("search.toml", "trials.json", "sweep.toml", "cells"):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        os.symlink(tmp_path / "outside", out / name)
        with pytest.raises(UserError):
            run_search(parse_search(QUICK.replace("trials = 5", "trials = 1")), out)
        assert (tmp_path / "outside").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["outside"]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"retry": "no"}, "retry must be True or False, not 'no'"),
        ({"output": None}, "output is missing: name the folder of the search"),
        ({"output": 3}, "output must be a path, not 3"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, keywords, message):
    with pytest.raises(UserError, match=message):
        run_search(parse_search(QUICK), **{"output": tmp_path / "out", **keywords})
    with pytest.raises(UserError, match="search must be a path, not 3"):
        run_search(3)
    assert not (tmp_path / "out").exists()
