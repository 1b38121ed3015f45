"""Callbacks receive what happens, change nothing, and their errors lose nothing."""

import asyncio
import signal

import pytest
import safetensors.torch
import torch

import curricula
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.training.callbacks import Callback, Callbacks, NoCallback
from curricula.training.run import BEST, LAST, METRICS, Run

SMALL = {
    "data": "tiny",
    "model": "tinycnn(width=2)",
    "perturb": "rot+pgd(0.1, steps=1)",
    "epochs": 2,
    "precision": "float32",
}
STEPS = 9  # updates of an epoch of the tiny data set
EVENTS = [name for name in vars(NoCallback) if name.startswith("on_")]


class Log(NoCallback):
    """Keep the name of each event, and what came with it."""

    def __init__(self):
        self.events = []

    def of(self, name):
        return [values for event, values in self.events if event == name]


for event in EVENTS:

    def receive(self, *values, event=event):
        self.events.append((event, values))

    setattr(Log, event, receive)


class Fails(NoCallback):
    """Fail at one event, the n-th time that it comes."""

    def __init__(self, event, times=1, error=None):
        self.left = times
        setattr(self, event, self.fail)
        self.error = error or ValueError("two\nlines")

    def fail(self, *values):
        self.left -= 1
        if not self.left:
            raise self.error


def contents(path):
    tensors = [safetensors.torch.load((path / file).read_bytes()) for file in (BEST, LAST)]
    return [
        *[(path / file).read_bytes() for file in (METRICS, "evaluation.json")],
        *[{name: tensor.numpy().tobytes() for name, tensor in of.items()} for of in tensors],
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the folder of a training that no callback follows."""
    from conftest import TINY

    registry.use(registry.build_registry([TINY]))
    return curricula.train(**SMALL, output=tmp_path_factory.mktemp("alone") / "run").run.path


def test_every_event_of_the_protocol_is_ignored_and_forwarded():
    events = [name for name in vars(Callback) if name.startswith("on_")]
    assert events == EVENTS == [name for name in vars(Callbacks) if name.startswith("on_")]


def test_a_training_is_followed_and_not_changed(alone, tiny, tmp_path):
    first, second = Log(), Log()
    path = tmp_path / "run"
    results = curricula.train(**SMALL, output=path, callbacks=[first, second]).results
    assert contents(path) == contents(alone)
    assert [name for name, _ in first.events] == [name for name, _ in second.events]
    names = [name for name, _ in first.events if name not in ("on_message", "on_eval_batch_end")]
    epoch = ["on_step_end"] * STEPS + ["on_epoch_end", "on_checkpoint"]
    assert names == [
        "on_train_start",
        *epoch,
        *epoch,
        "on_eval_start",
        "on_eval_end",
        "on_train_end",
    ]
    assert [metrics for (metrics,) in first.of("on_epoch_end")] == Run.open(path).metrics
    assert first.of("on_eval_end") == [(results,)]
    (batches,) = first.of("on_eval_start")[0]
    assert len(first.of("on_eval_batch_end")) == batches


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_update_has_what_was_trained_on(tiny, tmp_path, accumulate):
    log = Log()
    values = SMALL | {"augmentation": "flip", "schedule": ["constant"], "lr_schedule": "constant"}
    run = curricula.train(
        **values, lr=0.01, accumulate=accumulate, output=tmp_path / "run", callbacks=[log]
    ).run
    updates = [update for (update,) in log.of("on_step_end")]
    assert [update.progress.step for update in updates] == list(range(2 * STEPS))
    assert [update.lr for update in updates] == [0.01] * 2 * STEPS
    assert updates[0].mean_strengths() == {"rot": 1.0, "pgd": 1.0}
    losses = torch.stack([update.loss for update in updates]).reshape(2, STEPS).mean(1)
    assert losses.tolist() == pytest.approx([line.loss for line in run.metrics])
    correct = torch.stack([update.correct_N for update in updates]).reshape(2, -1).float().mean(1)
    assert correct.tolist() == pytest.approx([line.train_accuracy for line in run.metrics])
    for update in updates:
        whole = update.views(20)
        change = (whole.perturbed - whole.transformed).abs().amax((1, 2, 3))
        assert change.max() <= 0.1 + 1e-6
        assert change.min() > 0.05
        assert not torch.equal(whole.transformed, whole.clean)
        for limit in (1, 8, 20, 100):
            few = update.views(limit)
            assert len(few.clean) == min(limit, 20)
            for name in ("clean", "transformed", "perturbed"):
                assert torch.equal(getattr(few, name), getattr(whole, name)[:limit])


def test_an_update_is_not_kept_while_the_next_one_runs(tiny, tmp_path, monkeypatch):
    import weakref

    from curricula.training import loop

    alive, real = [], loop.update

    def update(*values):
        assert all(reference() is None for reference in alive)
        made = real(*values)
        alive.append(weakref.ref(made.parts[0].perturbed))
        return made

    monkeypatch.setattr(loop, "update", update)
    curricula.train(**SMALL, output=tmp_path / "run", callbacks=[NoCallback()])
    assert len(alive) == 2 * STEPS


STOPPED = [(event, 1) for event in EVENTS if event != "on_resume"] + [
    ("on_step_end", 4),
    ("on_step_end", STEPS),
    ("on_epoch_end", 2),
    ("on_eval_batch_end", 2),
]


@pytest.mark.parametrize(("event", "times"), STOPPED)
def test_an_error_is_one_line_and_loses_nothing(alone, tiny, tmp_path, event, times):
    log, path = Log(), tmp_path / "run"
    failing = Fails(event, times)
    with pytest.raises(UserError) as caught:
        curricula.train(**SMALL, output=path, callbacks=[failing, log])
    message = str(caught.value)
    assert message.startswith(f"callback Fails failed in {event} (ValueError: two lines); ")
    finished = event in ("on_eval_end", "on_train_end")
    command = f" report {path} writes its page" if finished else f" train --resume {path}"
    assert message.endswith(command)
    assert (path / "evaluation.json").exists() == finished
    assert caught.value.__cause__ is failing.error
    done = len(log.of("on_step_end"))
    assert done == {
        "on_step_end": times,
        "on_epoch_end": times * STEPS,
        "on_checkpoint": STEPS,
    }.get(event, 0 if event in ("on_message", "on_train_start") else 2 * STEPS)
    if 0 < done < 2 * STEPS:
        assert f'"step": {done}' in Run.open(path).load(LAST)[1]["state"]
    assert log.events[-1][0] == "on_train_end"
    if not finished:
        resumed = Log()
        curricula.resume(path, callbacks=[resumed])
        assert resumed.of("on_resume") == [(done,)]
        assert len(resumed.of("on_step_end")) == 2 * STEPS - done
    assert contents(path) == contents(alone)


def test_a_callback_that_failed_hears_only_the_end(tiny, tmp_path):
    class Twice(Log):
        def on_epoch_end(self, metrics):
            raise UserError("enough")

    log = Twice()
    with pytest.raises(UserError, match=r"callback Twice failed in on_epoch_end \(enough\)"):
        curricula.train(**SMALL, output=tmp_path / "run", callbacks=[log])
    assert [name for name, _ in log.events][-2:] == ["on_step_end", "on_train_end"]


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_callback_that_exits_loses_nothing(tiny, tmp_path, error):
    failing = Fails("on_step_end", 4, error(3))
    with pytest.raises(UserError, match=rf"failed in on_step_end \({error.__name__}: 3\)"):
        curricula.train(**SMALL, output=tmp_path / "run", callbacks=[failing])
    assert '"step": 4' in Run.open(tmp_path / "run").load(LAST)[1]["state"]


def test_an_error_at_the_end_of_a_run_whose_baseline_is_missing_says_how_to_continue(
    alone, tiny, tmp_path
):
    path = tmp_path / "run"
    with pytest.raises(UserError, match=f"continue without it: .* train --resume {path}$"):
        curricula.train(**SMALL, output=path, baseline=True, callbacks=[Fails("on_train_end")])
    with pytest.raises(UserError, match=f"run {path / 'baseline'} is finished"):
        curricula.resume(path, callbacks=[Fails("on_eval_end")])
    assert Run.open(path).is_finished
    assert contents(path) == contents(alone)


@pytest.mark.parametrize("event", ["on_eval_end", "on_train_end"])
def test_a_signal_after_the_last_update_names_no_continuation(tiny, tmp_path, event):
    class Interrupts(NoCallback):
        pass

    setattr(Interrupts, event, lambda self, *values: signal.raise_signal(signal.SIGTERM))
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=f"interrupted; .* run {path} is finished"):
        curricula.train(**SMALL, output=path, callbacks=[Interrupts()])
    assert Run.open(path).is_finished


@pytest.mark.parametrize("fails", [False, True])
def test_a_callback_changes_no_modes_of_torch(alone, tiny, tmp_path, fails):
    modes = []

    class Changes(Log):
        pass

    def change(self, *values):
        modes.append((torch.is_grad_enabled(), torch.get_default_dtype()))
        torch.set_grad_enabled(not torch.is_grad_enabled())
        torch.set_default_dtype(torch.float64)
        if fails and len(modes) == 2 * STEPS:
            raise ValueError

    for event in EVENTS:
        setattr(Changes, event, change)
    path = tmp_path / "run"
    if fails:
        with pytest.raises(UserError, match="callback Changes failed in"):
            curricula.train(**SMALL, output=path, callbacks=[Changes()])
        curricula.resume(path)
    else:
        curricula.train(**SMALL, output=path, callbacks=[Changes()])
    assert contents(path) == contents(alone)
    assert {dtype for _, dtype in modes} == {torch.float32}
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_a_rollback_says_what_comes_again(tiny, tmp_path, monkeypatch):
    from curricula.training import loop

    log, real = Log(), loop.problem
    checked = []

    def problem(state):
        checked.append(state.step)
        return "loss" if checked.count(2 * STEPS) == 1 and state.step == 2 * STEPS else real(state)

    monkeypatch.setattr(loop, "problem", problem)
    curricula.train(**SMALL, on_collapse="rollback", output=tmp_path / "run", callbacks=[log])
    assert log.of("on_resume") == [(STEPS,)]
    assert [update.progress.step for (update,) in log.of("on_step_end")] == [
        *range(2 * STEPS), *range(STEPS, 2 * STEPS),
    ]  # fmt: skip


def test_a_baseline_is_followed_too(tiny, tmp_path):
    log = Log()
    curricula.train(**SMALL, baseline=True, output=tmp_path / "run", callbacks=[log])
    paths = [run.path for run, _, _ in log.of("on_train_start")]
    assert paths == [tmp_path / "run", tmp_path / "run" / "baseline"]
    assert len(log.of("on_train_end")) == 2


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (["tensorboard("], "in 'tensorboard(', at the end"),
        ("tensorboard", "callbacks must be a list of callbacks and of their expressions, such as"),
        ([Log], "derive its class from NoCallback, and give an object"),
        ([3], "a callback must have the methods of curricula.training.Callback"),
    ],
)
def test_a_wrong_callback_is_one_line(tiny, tmp_path, callbacks, message):
    with pytest.raises(UserError) as caught:
        curricula.train(**SMALL, output=tmp_path / "run", callbacks=callbacks)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()
    path = curricula.train(**SMALL | {"epochs": 1}, output=tmp_path / "run").run.path
    (path / "evaluation.json").unlink()
    with pytest.raises(UserError) as caught:
        curricula.resume(path, callbacks=callbacks)
    assert message in str(caught.value)
