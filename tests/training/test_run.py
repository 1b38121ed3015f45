"""A run folder, which may come from someone else: damaged, changed or full of links."""

import errno
import json
import multiprocessing
import os
import re
import shutil

import pytest
import safetensors.torch
import torch

import curricula
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.reporting.report import report
from curricula.training.run import BEST, LAST, METRICS, TIMING, Run

SMALL = {"data": "tiny", "model": "tinycnn(width=2)", "perturb": "rot", "epochs": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a small run."""
    from conftest import TINY

    before = registry.current()
    registry.use(registry.build_registry([TINY]))
    path = tmp_path_factory.mktemp("trained") / "run"
    curricula.train(**SMALL, output=path)
    registry.use(before)
    return path


@pytest.fixture
def run(trained, tiny, tmp_path):
    """Return a copy of the small run."""
    return Run.open(shutil.copytree(trained, tmp_path / "copy"))


def rewrite(path, change):
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors))


def test_equal_checkpoints_are_equal_files(run):
    """safetensors orders the texts at random, again in each call."""
    tensors = {"b": torch.rand(3, 2), "a": torch.arange(4), "é": torch.ones(1).bool()}
    texts = {f"text {n}": 'x"\n\u001fé' * n for n in range(8)}
    contents = []
    for order in (texts, dict(reversed(texts.items()))):
        for _ in range(3):
            run.save("some.safetensors", tensors, order)
            contents.append((run.path / "some.safetensors").read_bytes())
    assert len(set(contents)) == 1
    read = safetensors.torch.load(contents[0])
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    with safetensors.safe_open(run.path / "some.safetensors", "pt") as file:
        found = file.metadata()
    assert texts.items() <= found.items()


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.complex64, torch.float64, torch.float8_e4m3fn, torch.int32]
)
def test_weights_of_another_type_are_not_converted(run, dtype):
    def change(tensors):
        tensors["model.6.weight"] = tensors["model.6.weight"].to(dtype)

    rewrite(run.path / BEST, change)
    with pytest.raises(
        UserError, match=rf"best.safetensors: 6.weight is of {dtype}, not torch.float32"
    ):
        curricula.load_model(run)


@pytest.mark.parametrize("value", [torch.zeros(2), torch.tensor(0.5), torch.tensor(1j)])
def test_a_count_of_averages_that_is_not_a_whole_number_is_damage(run, value):
    rewrite(run.path / BEST, lambda tensors: tensors.update({"average.n_averaged": value}))
    with pytest.raises(UserError, match=r"damaged .average.n_averaged is not a count"):
        curricula.load_model(run)


def test_a_checkpoint_that_cannot_be_read_is_not_called_missing(run):
    (run.path / BEST).unlink()
    os.mkfifo(run.path / BEST)
    with pytest.raises(UserError, match=r"cannot be read .not a regular file"):
        curricula.load_model(run)
    (run.path / BEST).unlink()
    with pytest.raises(UserError, match="no such file"):
        run.load(BEST)


def test_lines_survive_what_editors_and_kills_do_to_them(run):
    path = run.path / TIMING
    whole = path.read_text()
    before = run.lines(TIMING)
    for text in ("\ufeff" + whole, whole + "\n\n", whole.replace("\n", "\n\n"), whole + '{"epo'):
        path.write_text(text, encoding="utf-8")
        assert run.lines(TIMING) == before
    assert curricula.compare([run.path]).rows[0].outcomes[0].seconds > 0
    path.write_text('{"epo\n' + whole)
    with pytest.raises(UserError, match="cannot be read in line 1"):
        run.lines(TIMING)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{", '"\udc80"'])
def test_json_that_python_cannot_read_is_one_line(run, text):
    (run.path / METRICS).write_bytes(text.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(UserError, match=r"metrics.jsonl: cannot be read"):
        run.lines(METRICS)


def test_a_pipe_in_place_of_a_file_does_not_hang(run):
    (run.path / METRICS).unlink()
    os.mkfifo(run.path / METRICS)
    with pytest.raises(UserError, match=r"metrics.jsonl: cannot be read .not a regular file"):
        run.lines(METRICS)


def test_nothing_is_written_through_a_link_of_a_run(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "training.svg").write_text("precious")
    before = sorted(other.iterdir())
    (run.path / "figures").symlink_to(other)
    with pytest.raises(UserError, match="figures is a symbolic link"):
        report(run.path)
    (run.path / "figures").unlink()
    (run.path / "figures").mkdir()
    (run.path / "figures" / "training.svg").symlink_to(other / "training.svg")
    with pytest.raises(UserError, match=r"training.svg is a symbolic link"):
        report(run.path)
    (run.path / "profile.json").symlink_to(other / "training.svg")
    with pytest.raises(UserError, match=r"profile.json is a symbolic link"):
        curricula.robustness_profile(run, limit=1)
    (run.path / METRICS).unlink()
    (run.path / METRICS).symlink_to(other / "training.svg")
    with pytest.raises(UserError, match=r"metrics.jsonl is a symbolic link"):
        run.append(METRICS, {})
    assert sorted(other.iterdir()) == before
    assert (other / "training.svg").read_text() == "precious"


def test_a_pipe_in_place_of_what_is_written_does_not_hang(run):
    (run.path / "figures").mkdir()
    for file in ("figures/training.svg", "profile.json"):
        os.mkfifo(run.path / file)
    with pytest.raises(UserError, match=r"profile.json is not a regular file; delete it"):
        curricula.robustness_profile(run, limit=1)
    (run.path / "profile.json").unlink()
    with pytest.raises(UserError, match=r"training.svg is not a regular file; delete it"):
        report(run.path)
    (run.path / METRICS).unlink()
    os.mkfifo(run.path / METRICS)
    with pytest.raises(UserError, match=r"metrics.jsonl is not a regular file; delete it"):
        run.append(METRICS, {})


def test_no_baseline_is_trained_through_a_link(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "baseline").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="baseline is a symbolic link"):
        curricula.train(**SMALL, output=tmp_path / "run", baseline=True)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["baseline"]


def test_data_that_changed_since_the_training_are_not_measured(run):
    stored = json.loads((run.path / "data.json").read_text())
    for name, value, what in (
        ("test", "0" * 32, "test images"),
        ("train", "0" * 32, "training images"),
        ("classes", stored["classes"][::-1], "classes"),
    ):
        (run.path / "data.json").write_text(json.dumps(stored | {name: value}))
        with pytest.raises(UserError, match=f"the {what} of tiny have changed since run"):
            curricula.evaluate(run, threats=["clean"], limit=1)
    (run.path / "data.json").unlink()
    for measure in (curricula.evaluate, curricula.robustness_profile, curricula.audit):
        with pytest.raises(UserError, match=r"has no data.json, which identifies the data"):
            measure(run, limit=1)
    data = curricula.load_data("tiny")
    network = curricula.load_model(run, data=data)
    assert curricula.evaluate(network, data=data, threats=["clean"], limit=1)[0].n == 1
    (run.path / "data.json").write_text(json.dumps(stored))
    assert curricula.evaluate(run, threats=["clean"], limit=1)[0].n == 1


def train_into(path, ready, failures):
    registry.use(registry.build_registry([path.parent / "tiny.py"]))
    ready.wait()
    try:
        curricula.train(**SMALL, output=path)
    except UserError as error:
        failures.put(str(error))
    else:
        failures.put("")


def test_of_two_trainings_that_begin_together_one_has_the_folder(tiny, tmp_path):
    from conftest import TINY

    shutil.copy(TINY, tmp_path / "tiny.py")
    context = multiprocessing.get_context("fork")
    ready, failures = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=train_into, args=(tmp_path / "run", ready, failures))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    found = sorted(failures.get(timeout=120) for _ in both)
    for process in both:
        process.join()
    assert found[0] == ""
    assert "another process is writing to it" in found[1] or "already holds a run" in found[1]
    assert [line["epoch"] for line in Run.open(tmp_path / "run").lines(METRICS)] == [1]


def test_runs_without_a_name_that_begin_in_one_second_have_a_folder_each(
    tiny, tmp_path, monkeypatch
):
    from curricula.api.training import new_folder
    from curricula.training.plan import make_plan

    monkeypatch.chdir(tmp_path)
    plan = make_plan(SMALL)
    found = [new_folder(plan) for _ in range(3)]
    assert len({path for path in found if path.is_dir()}) == 3


FULL, DENIED, READ_ONLY = errno.ENOSPC, errno.EACCES, errno.EROFS


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("config.toml", READ_ONLY),
        (METRICS, DENIED),
        (BEST, FULL),
        (LAST, FULL),
        ("evaluation.json", FULL),
    ],
)
def test_a_write_that_fails_is_one_line_and_loses_no_checkpoint(
    tiny, tmp_path, monkeypatch, file, code
):
    from curricula.training import run as runs

    def failing(write):
        def fail_or_write(path, content, **settings):
            if path.name == file:
                raise OSError(code, os.strerror(code))
            write(path, content, **settings)

        return fail_or_write

    for name in ("write_atomic", "append_line"):
        monkeypatch.setattr(runs, name, failing(getattr(runs, name)))
    with pytest.raises(UserError, match=rf"{file}: cannot be written \({os.strerror(code)}\)"):
        curricula.train(**SMALL, output=tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not any(name.endswith(".partial") for name in left)
    if file == "evaluation.json":
        assert {BEST, LAST} <= left


def test_a_run_whose_plugin_is_missing_says_which(run):
    registry.use(registry.build_registry(entry_points=False))
    for measure in (
        lambda: curricula.evaluate(run, limit=1),
        lambda: curricula.load_model(run),
        lambda: curricula.resume(run),
    ):
        with pytest.raises(
            UserError, match=r"needs a plugin that is missing .*with .*tiny.py"
        ) as e:
            measure()
        assert "did you mean" not in str(e.value)  # a name of another plugin
        assert re.search("write curricula --plugin .*tiny.py COMMAND$", str(e.value))
    (run.path / "environment.json").unlink()
    with pytest.raises(UserError, match="unknown model 'tinycnn'"):
        curricula.load_model(run)
