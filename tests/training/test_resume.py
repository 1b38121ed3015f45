"""A training that was interrupted anywhere ends as one that never was: bit for bit."""

import json
import random
import shutil
import signal
import threading

import numpy as np
import pytest
from fixtures.outcomes import outcome

import curricula
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.runtime.signals import Interrupted
from curricula.training import checkpoint
from curricula.training import run as runs
from curricula.training.callbacks import NoCallback
from curricula.training.run import BEST, LAST, METRICS, PREVIOUS, Run

SMALL = {"data": "tiny", "model": "tinycnn(width=2)", "epochs": 2, "precision": "float32"}
STEPS = 9  # updates of an epoch of the tiny data set
CONFIGURATIONS = {
    "pgd": {"perturb": "rot+pgd", "augmentation": "crop+flip", "optimizer": "sgd"},
    "adaptive, ema, awp": {
        "perturb": "rot+pgd(0.1, steps=1)",
        "schedule": ["earned"],
        "average": "ema(decay=0.9)",
        "awp": 0.005,
        "optimizer": "adamw",
    },
    "plateau, swa": {
        "perturb": "rot",
        "schedule": ["plateau"],
        "average": "swa(start=0)",
        "objective": "trades",
    },
}


class Killed(KeyboardInterrupt):
    """Imitate SIGKILL: nothing catches it."""


class KillAt(NoCallback):
    """Kill the training after a number of updates."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, update):
        if update.progress.step + 1 == self.step:
            raise Killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the outcome of a configuration's training that nothing interrupted."""
    from conftest import TINY

    found = {}

    def of(name):
        if name not in found:
            registry.use(registry.build_registry([TINY]))
            path = tmp_path_factory.mktemp("whole") / "run"
            curricula.train(**SMALL, **CONFIGURATIONS[name], output=path)
            found[name] = outcome(path)
        return found[name]

    return of


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize(
    ("step", "every"),
    [
        (1, "1"),  # just after the first checkpoint
        (STEPS - 2, "3"),  # some updates after a checkpoint
        (STEPS, "1"),  # after an epoch's last update, before its validation
        (STEPS + 4, "5"),
    ],
)
def test_killed_between_updates_and_continued(whole, tiny, tmp_path, name, step, every):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        curricula.train(
            **SMALL,
            **CONFIGURATIONS[name],
            output=path,
            checkpoint_every=every,
            callbacks=[KillAt(step + 1)],
        )
    random.seed(step), np.random.seed(step)  # of another process: the states must not matter
    curricula.resume(path)
    assert outcome(path) == whole(name)
    assert not (path / PREVIOUS).exists()


@pytest.mark.parametrize("number", range(1, 14))
def test_killed_at_any_write_and_continued(whole, tiny, tmp_path, monkeypatch, number):
    path, written, before = tmp_path / "run", [], number % 2 == 0

    def killing(write):
        def write_or_die(file, content, **settings):
            written.append(file.name)
            if not before:
                write(file, content, **settings)
            if len(written) == number + 2:  # the folder has its configuration
                raise Killed
            if before:
                write(file, content, **settings)

        return write_or_die

    with monkeypatch.context() as patched:
        for name in ("write_atomic", "append_line"):
            patched.setattr(runs, name, killing(getattr(runs, name)))
        with pytest.raises(Killed):
            curricula.train(**SMALL, **CONFIGURATIONS["pgd"], output=path, checkpoint_every="4")
    curricula.resume(path)
    assert outcome(path) == whole("pgd")


def interrupted(path, step, number=signal.SIGINT, **settings):
    """Send a signal to a training after a number of updates; return the error."""

    class Send(NoCallback):
        def on_step_end(self, update):
            if update.progress.step + 1 == step:
                signal.raise_signal(number)

    with pytest.raises(Interrupted) as raised:
        curricula.train(
            **SMALL, **CONFIGURATIONS["pgd"], output=path, callbacks=[Send()], **settings
        )
    return raised.value


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_update_and_saves(whole, tiny, tmp_path, number):
    path = tmp_path / "run"
    error = interrupted(path, 5, number)
    assert error.status == 128 + number
    assert str(error).startswith("interrupted; continue with: curricula ")
    assert str(error).endswith(f" train --resume {path}")
    _, texts = Run.open(path).load(LAST)
    assert json.loads(texts["state"])["step"] == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    curricula.resume(path)
    assert outcome(path) == whole("pgd")


def test_a_second_signal_ends_at_once(tiny, tmp_path):
    class Twice(NoCallback):
        def on_step_end(self, update):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError

    with pytest.raises(Interrupted, match="again"):
        curricula.train(**SMALL, output=tmp_path / "run", callbacks=[Twice()])


def test_a_training_in_another_thread_leaves_signals_alone(tiny, tmp_path):
    known = registry.current()
    failures = []

    def train():
        try:
            registry.use(known)
            curricula.train(**SMALL | {"epochs": 1}, output=tmp_path / "run")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not failures


def test_an_evaluation_that_was_killed_is_done_again(whole, tiny, tmp_path):
    class InEvaluation(NoCallback):
        def on_eval_batch_end(self):
            raise Killed

    path = tmp_path / "run"
    with pytest.raises(Killed):
        curricula.train(**SMALL, **CONFIGURATIONS["pgd"], output=path, callbacks=[InEvaluation()])
    curricula.resume(path)
    assert outcome(path) == whole("pgd")
    with pytest.raises(UserError, match="is finished: there is nothing to continue after epoch 2"):
        curricula.resume(path)
    for file in ("metrics.jsonl", "evaluation.json"):
        content = (path / file).read_text()
        (path / file).write_text("{}\n" + content)
        with pytest.raises(UserError, match=file):
            curricula.resume(path)
        (path / file).write_text(content)


def test_a_baseline_is_trained_too_when_its_run_is_continued(tiny, tmp_path):
    values = SMALL | {"perturb": "rot", "epochs": 1}
    expected = curricula.train(**values, output=tmp_path / "whole", baseline=True)
    for name, step in (("first", 3), ("second", STEPS + 3)):
        seen = []

        class Kill(NoCallback):
            def on_step_end(self, update, seen=seen, step=step):
                seen.append(update)
                if len(seen) == step:
                    raise Killed

        with pytest.raises(Killed):
            curricula.train(**values, output=tmp_path / name, baseline=True, callbacks=[Kill()])
        found = curricula.resume(tmp_path / name)
        assert found.results == expected.results
        assert found.baseline.results == expected.baseline.results


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Return a folder of a training that was interrupted in its second epoch."""
    from conftest import TINY

    registry.use(registry.build_registry([TINY]))
    path = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(path, STEPS + 4, checkpoint_every="2")
    return path


@pytest.fixture
def copied(stopped, tiny, tmp_path):
    return shutil.copytree(stopped, tmp_path / "copy")


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b""])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(whole, copied, damage):
    lines = []

    class Collect(NoCallback):
        def on_message(self, line):
            lines.append(line)

    (copied / LAST).write_bytes(damage((copied / LAST).read_bytes()))
    curricula.resume(copied, callbacks=[Collect()])
    assert any(
        f"checkpoint {copied / LAST}: damaged" in line and f"continuing from {PREVIOUS}" in line
        for line in lines
    )
    assert outcome(copied) == whole("pgd")


def test_where_both_are_damaged_nothing_is_written(copied):
    for file in (LAST, PREVIOUS):
        (copied / file).write_bytes(flip((copied / file).read_bytes()))
    before = {path: path.read_bytes() for path in copied.iterdir()}
    with pytest.raises(UserError, match=r"last.safetensors: damaged \(its contents changed"):
        curricula.resume(copied)
    assert {path: path.read_bytes() for path in copied.iterdir()} == before


def edited(file, old, new):
    def edit(path):
        text = (path / file).read_text()
        assert old in text
        (path / file).write_text(text.replace(old, new))

    return edit


def without(*files):
    def remove(path):
        for file in files:
            (path / file).unlink()

    return remove


def damaged_best(path):
    (path / BEST).write_bytes(flip((path / BEST).read_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            edited("config.toml", "epochs = 2", "epochs = 3"),
            r"config.toml was edited .*epochs was",
        ),
        (edited("config.toml", 'data = "tiny"', 'data = "digits"'), "classes|images|edited"),
        (edited("data.json", '"train": "', '"train": "0'), "training images of tiny have changed"),
        (damaged_best, "best.safetensors: damaged"),
        (without("config.toml"), "is not a run folder"),
        (without(METRICS), "its metrics.jsonl has 0 of the 1 epochs of its checkpoint"),
    ],
)
def test_a_run_that_changed_is_not_continued_and_nothing_is_written(copied, change, message):
    change(copied)
    before = {path: path.read_bytes() for path in copied.iterdir()}
    with pytest.raises(UserError, match=message):
        curricula.resume(copied)
    assert {path: path.read_bytes() for path in copied.iterdir()} == before


def test_another_version_of_a_plugin_is_refused(copied, monkeypatch):
    monkeypatch.setattr(checkpoint, "providers_of", lambda plan: ["other 2.0"])
    with pytest.raises(UserError, match=r"was trained with .*, not with other 2.0: install"):
        curricula.resume(copied)


def test_metrics_without_their_checkpoint_are_not_thrown_away(copied):
    run = Run.open(copied)
    run.append(METRICS, run.lines(METRICS)[0] | {"epoch": 2})
    without(LAST, PREVIOUS)(copied)
    run.keep_epochs(2)
    (copied / "config.toml").write_text(
        (copied / "config.toml").read_text().replace("epochs = 2", "epochs = 5")
    )
    with pytest.raises(UserError, match=r"cannot be continued: its last.safetensors, after 2"):
        curricula.resume(copied)
    assert len(run.lines(METRICS)) == 2


def test_a_training_that_begins_again_says_so(copied):
    without(LAST, PREVIOUS)(copied)
    lines = []

    class Collect(NoCallback):
        def on_message(self, line):
            lines.append(line)

    curricula.resume(copied, callbacks=[Collect()])
    assert any("no checkpoint has been saved yet: the training begins again" in x for x in lines)


def test_a_file_of_a_sweep_beside_the_runs_does_not_matter(copied, tmp_path):
    (tmp_path / "runs").mkdir()
    shutil.move(copied, tmp_path / "runs" / "first")
    (tmp_path / "sweep.toml").write_text("[axes]\nseed = [0]\n")
    curricula.resume(tmp_path / "runs" / "first")


def test_a_finished_training_without_its_results_is_only_evaluated(whole, tiny, tmp_path):
    path = tmp_path / "run"
    curricula.train(**SMALL, **CONFIGURATIONS["pgd"], output=path)
    without(LAST, "evaluation.json")(path)

    class NoUpdate(NoCallback):
        def on_step_end(self, update):
            raise AssertionError

    curricula.resume(path, callbacks=[NoUpdate()])
    expected = whole("pgd")
    assert (path / METRICS).read_bytes() == expected[0]
    assert (path / "evaluation.json").read_bytes() == expected[1]


def test_a_cell_is_continued_by_its_sweep(tiny, tmp_path):
    (tmp_path / "sweep" / "cells").mkdir(parents=True)
    (tmp_path / "sweep" / "sweep.toml").write_text("")
    cell = tmp_path / "sweep" / "cells" / "a"
    with pytest.raises(Killed):
        curricula.train(**SMALL, output=cell, callbacks=[KillAt(2)])
    with pytest.raises(UserError, match="is a cell of a sweep: start the sweep again"):
        curricula.resume(cell)


def test_checkpoints_take_a_small_share_of_the_time(monkeypatch):
    from curricula.training import saver

    now = [0.0]
    monkeypatch.setattr(saver.time, "perf_counter", lambda: now[0])
    found = saver.Saver(None)
    times = []
    for step in range(20_000):  # an update takes a second, a checkpoint three
        now[0] += 1
        if found.is_due(step):
            found.save(lambda: now.__setitem__(0, now[0] + 3))
            times.append(now[0])
    assert times[0] <= 2 * saver.MIN_SECONDS
    assert 3 * len(times) <= 0.01 * now[0] + 3


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "1.5",
        "nan",
        "0min",
        "-2min",
        "nanmin",
        "min",
        "5s",
        "1_000",
        "\uff15",
        " \xa05",
        "",
        "1e13",
        "9" * 5000,
        pytest.param(10**5000, id="long"),
        True,
        "1e7min",
        "infmin",
        "1e999min",
        "1, 2",
        "5 min min",
        "steps=5",
    ],
)
def test_a_wrong_interval_is_one_line(tiny, tmp_path, text):
    with pytest.raises(UserError, match=r"checkpoint_every must be a number of updates, such as"):
        curricula.train(**SMALL, output=tmp_path / "run", checkpoint_every=text)
    assert not (tmp_path / "run").exists()


LATER = ("normalise", "init", "init_head", "freeze", "head_lr")  # fields of later versions


def test_a_checkpoint_of_an_earlier_version_is_continued_bit_for_bit(whole, tiny, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        curricula.train(
            **SMALL,
            **CONFIGURATIONS["pgd"],
            output=path,
            checkpoint_every="3",
            callbacks=[KillAt(8)],
        )
    run = Run(path)
    tensors, texts = run.load(LAST)
    state = json.loads(texts["state"])
    state["config"] = {k: v for k, v in state["config"].items() if k not in LATER}
    state["config"]["optimizer"] = "sgd"
    state["form"] = state["form"][:2]
    run.save(LAST, tensors, {"state": json.dumps(state)})
    (path / PREVIOUS).unlink(missing_ok=True)
    lines = (path / "config.toml").read_text().splitlines()
    kept = [line for line in lines if line.partition(" =")[0] not in LATER]
    kept = ['optimizer = "sgd"' if line.startswith("optimizer =") else line for line in kept]
    (path / "config.toml").write_text("\n".join(kept) + "\n")
    curricula.resume(path)
    assert outcome(path) == whole("pgd")
