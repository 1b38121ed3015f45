"""The monitor notices what spoils a training, says it, and acts on it."""

import json
import math

import attrs
import pytest
import torch
from conftest import TINY
from torch import nn

import curricula
from curricula import Record, hookimpl
from curricula.data.dataset import Split
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.plugins.registry import Provider
from curricula.training import loop, monitor
from curricula.training.callbacks import NoCallback
from curricula.training.monitor import Epoch, Trace, cause, findings
from curricula.training.plan import make_plan
from curricula.training.run import BEST, GOOD, LAST, METRICS, Run
from curricula.training.step import start
from curricula.victim.model_victim import ModelVictim

NANS = TINY.with_name("nans.py")
GOOD_EPOCH = Epoch(train_accuracy=0.7, loss=0.9, joint=0.6, strong=0.6, full=True)


def after(*changes, number=1):
    """Return the findings of good epochs followed by changed ones."""
    epochs = [GOOD_EPOCH] * number + [attrs.evolve(GOOD_EPOCH, **change) for change in changes]
    return findings(epochs, num_classes=10, validation=1000)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"train_accuracy": 0.95, "strong": 0.0, "joint": 0.0}, ["catastrophic overfitting"]),
        ({"train_accuracy": 0.95, "strong": 0.5}, []),  # a generalisation gap
        ({"train_accuracy": 0.2, "strong": 0.0}, []),  # the first epochs
        ({"train_accuracy": 0.9, "strong": None, "joint": 0.0}, []),  # a ramp that still rises
        ({"loss": 7e29}, ["divergence"]),
        ({"loss": 2.5}, []),
        ({"zero_gradient": True}, ["no gradient"]),
        ({"zero_gradient": True, "train_accuracy": 1.0}, []),
    ],
)
def test_what_an_epoch_shows(change, expected):
    assert after(change) == expected


def test_robust_overfitting_is_a_lasting_fall_at_full_strength():
    better = {"train_accuracy": 0.9, "joint": 0.5, "strong": 0.5}
    assert after(*[better] * 3, number=3) == ["robust overfitting"]
    assert after(better, number=5) == []  # one epoch can be noise
    assert after(*[better | {"joint": 0.58}] * 3, number=3) == []
    assert after(*[better | {"full": False}] * 3, number=3) == []
    assert after(*[better | {"train_accuracy": 0.5}] * 3, number=3) == []  # nothing is fitted


def test_the_fewer_images_the_larger_the_fall_must_be():
    epochs = [GOOD_EPOCH] * 3 + [attrs.evolve(GOOD_EPOCH, joint=0.5, train_accuracy=0.8)] * 3
    assert findings(epochs, num_classes=10, validation=2000)
    assert not findings(epochs, num_classes=10, validation=100)


@attrs.frozen(kw_only=True)
class Planted:
    """`planted`: cross-entropy, with a fault after a number of calls."""

    attack_loss = "ce"
    at: int = 4
    fault: str = "loss"
    calls: list = attrs.field(factory=list)

    def __call__(self, model, views, y_N):
        self.calls.append(1)
        logits = model(views.perturbed)
        loss = nn.functional.cross_entropy(logits, y_N)
        if len(self.calls) == self.at:
            if self.fault == "loss":
                loss = loss * float("nan")
            elif self.fault == "infinite":
                loss = loss * float("inf")
            elif self.fault == "gradient":  # a finite loss whose gradient is not
                loss = loss + (logits.sum() * 0).sqrt()
        if self.fault == "zero":
            loss = loss * 0
        return curricula.interfaces.TrainingLoss(value=loss, logits=logits.detach())


def planted(at: int = 4, fault: str = "loss") -> Planted:
    """A fault after a number of calls.

    Args:
        at: the call.
        fault: its kind.
    """
    return Planted(at=at, fault=fault)


class Plugin:
    @hookimpl
    def curricula_objectives(self):
        return [Record(name="planted", factory=planted, summary="A fault.")]


@pytest.fixture
def faults(tiny):
    registry.current().add(Plugin(), Provider(name="faults", source="file"))


SMALL = {
    "data": "tiny",
    "model": "tinycnn(width=2)",
    "perturb": "rot",
    "precision": "float32",
    "compile": "off",  # auto would call the objective in its trial
}


@pytest.mark.parametrize(
    ("fault", "what"), [("loss", "loss is"), ("infinite", "loss is"), ("gradient", "weights are")]
)
def test_numbers_that_are_not_finite_end_the_run_at_its_last_good_checkpoint(
    faults, tmp_path, fault, what
):
    path = tmp_path / "run"
    with pytest.raises(UserError, match=rf"the {what} no longer finite in epoch 2 .*lower lr"):
        curricula.train(
            **SMALL, epochs=3, objective=f"planted(at=18, fault={fault})", output=path,
            checkpoint_every=1,
        )  # fmt: skip
    tensors, texts = Run.open(path).load(LAST)
    assert all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())
    assert json.loads(texts["state"])["step"] == 17
    assert (path / BEST).exists()
    assert len(Run.open(path).lines(METRICS)) == 1


def test_the_message_does_not_offer_what_is_set_already(faults, tmp_path):
    with pytest.raises(UserError) as raised:
        curricula.train(**SMALL, epochs=1, objective="planted", output=tmp_path / "run")
    assert "float32" not in str(raised.value)
    assert str(raised.value).count("\n") == 0


@pytest.mark.parametrize(
    ("changes", "step", "message"),
    [
        ({"perturb": "nans(at=12)"}, 12, "^nans made an image with NaN in epoch 2 .*; check nans$"),
        ({"perturb": "rot+nans(at=12)+fgsm:0.1"}, 12, "^nans made an image .* 2 .*; check nans$"),
        ({"augmentation": "nans(at=12)"}, 11, "^nans made an image .* epoch 2 .*; check nans$"),
        (
            {"perturb": "rot+nan-attack(at=12)", "accumulate": 2},
            6,
            "^nan-attack made an image .* epoch 1 .*; check nan-attack, or lower lr",
        ),
        (
            {"schedule": ["nan-schedule(at=12)"]},
            12,
            r"^the schedule of rot gave a strength of NaN in epoch 2 .*; check nan-schedule\(at=12",
        ),
        # A network that has diverged makes the gradients of attacks NaN too.
        ({"perturb": "rot+fgsm:0.1", "lr": 1e30}, 1, "^the loss is no longer finite .*; lower lr"),
    ],
)
@pytest.mark.parametrize("on_collapse", ["warn", "rollback"])
def test_what_made_the_nan_is_said_and_no_checkpoint_is_lost(
    tiny, tmp_path, changes, step, message, on_collapse
):
    registry.use(registry.build_registry([TINY, NANS]))
    path = tmp_path / "run"
    with pytest.raises(UserError, match=message):
        curricula.train(
            **{**SMALL, **changes}, epochs=3, on_collapse=on_collapse, output=path,
            checkpoint_every=1,
        )  # fmt: skip
    run = Run.open(path)
    tensors, texts = run.load(LAST)
    assert all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())
    assert json.loads(texts["state"])["step"] == step


def test_all_processes_name_a_perturbation_that_spoilt_the_images_of_one(tiny, monkeypatch):
    registry.use(registry.build_registry([TINY, NANS]))
    plan = make_plan({**SMALL, "perturb": "nans+fgsm:0.1"})
    nan, one = torch.tensor(float("nan")), torch.tensor(1.0)
    strengths = {"nans": 1.0, "fgsm": 1.0}
    fine = Trace(strengths=strengths, loss=one, transformed=[one], perturbed=[one])
    here = attrs.evolve(fine, loss=nan)  # the loss is that of all processes
    there = attrs.evolve(here, transformed=[nan], perturbed=[nan])
    assert cause(plan, [fine, here]) is None

    def in_any(*flags):
        others = there.spoilt.values() if any(flags) else fine.spoilt.values()
        return tuple(map(max, flags, others))

    monkeypatch.setattr(monitor, "largest", in_any)
    assert cause(plan, [fine, here]) == ("nans made an image with NaN", "check nans")


class Messages(NoCallback):
    def __init__(self):
        self.lines = []

    def on_message(self, line):
        self.lines.append(line)


def test_a_network_without_gradients_is_reported(faults, tmp_path):
    heard = Messages()
    trained = curricula.train(
        **SMALL,
        epochs=2,
        objective="planted(fault=zero)",
        output=tmp_path / "run",
        callbacks=[heard],
    )
    assert [line["findings"] for line in trained.run.lines(METRICS)] == [["no gradient"]] * 2
    assert sum("no gradient" in line for line in heard.lines) == 1  # said once


COLLAPSED = {"strong_accuracy": 0.0, "train_accuracy": 0.9}


@pytest.fixture
def collapse(monkeypatch):
    """Return a function that plants collapses in epochs of a training, given by their order."""

    def plant(*when):
        done = []

        def found(epochs, **settings):
            done.append(len(epochs))
            return ["catastrophic overfitting"] if len(done) in when else []

        monkeypatch.setattr("curricula.training.loop.findings", found)

    return plant


def train(path, epochs=4, **values):
    heard = Messages()
    trained = curricula.train(
        **SMALL | {"perturb": "rot+fgsm:0.1"} | values,
        epochs=epochs,
        output=path,
        callbacks=[heard],
    )
    return trained, heard.lines


def test_a_collapse_is_warned_about_once(tiny, tmp_path, collapse):
    collapse(2, 3)
    trained, lines = train(tmp_path / "run")
    found = [line["findings"] for line in trained.run.lines(METRICS)]
    assert found == [[], ["catastrophic overfitting"], ["catastrophic overfitting"], []]
    assert sum("epoch 2: catastrophic overfitting: the network withstands" in x for x in lines) == 1


def test_stop_ends_the_training_and_evaluates_the_best(tiny, tmp_path, collapse):
    collapse(2)
    trained, lines = train(tmp_path / "run", on_collapse="stop")
    assert len(trained.run.lines(METRICS)) == 2
    assert trained.results[0].n == 60
    assert any("stopped (--on-collapse stop)" in line for line in lines)


def test_rollback_goes_back_and_continues_with_a_milder_setting(tiny, tmp_path, collapse):
    collapse(2, 4)
    trained, lines = train(tmp_path / "run", on_collapse="rollback", schedule=["constant"])
    metrics = trained.run.lines(METRICS)
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4]
    assert metrics[0]["strength"]["fgsm"] == 1.0
    # Rolled back twice: the share of each image is even from 0 to 1, then to a half.
    assert 0.2 < metrics[1]["strength"]["fgsm"] < 0.8
    assert 0.1 < metrics[3]["strength"]["fgsm"] < 0.4
    assert all(line["strength"]["rot"] == 1.0 for line in metrics)
    back = [line for line in lines if "back to epoch" in line]
    assert len(back) == 2
    assert "back to epoch 1 (rollback 1 of at most 5)" in back[0]
    assert not (tmp_path / "run" / GOOD).exists()


def test_the_cost_of_dropped_epochs_is_counted(tiny, faults, tmp_path, collapse):
    collapse(2)
    trained, _ = train(tmp_path / "run", epochs=3, on_collapse="rollback")
    of_epochs = [line.passes for line in trained.run.metrics]
    first, dropped_too, last = (each.training for each in of_epochs)
    assert dropped_too == 2 * first == 2 * last
    assert of_epochs[1].validation_forward > of_epochs[2].validation_forward
    collapse()
    trained, _ = train(
        tmp_path / "nan", epochs=2, objective="planted(at=12)", on_collapse="rollback"
    )
    assert [line.passes.training for line in trained.run.metrics] == [first, 2 * first]


def test_the_best_checkpoint_is_none_of_a_dropped_epoch(tiny, tmp_path, monkeypatch, collapse):
    joint = iter([0.5, 0.9, 0.4])  # of epoch 1, of epoch 2, and of epoch 2 once more
    monkeypatch.setattr(
        "curricula.training.loop._Training._validate",
        lambda *_: {"clean": 1.0, "joint": next(joint)},
    )
    saved, save = [], Run.save
    monkeypatch.setattr(
        Run,
        "save",
        lambda run, file, *rest, **kw: saved.append(file) or save(run, file, *rest, **kw),
    )
    collapse(2)
    trained, _ = train(tmp_path / "run", epochs=2, on_collapse="rollback")
    assert [line.best for line in trained.run.metrics] == [True, False]
    assert saved.count(BEST) == 1


def test_a_collapse_in_the_first_epoch_goes_back_to_the_beginning(tiny, tmp_path, collapse):
    collapse(1)
    trained, lines = train(tmp_path / "run", epochs=2, on_collapse="rollback")
    assert any("back to epoch 0" in line for line in lines)
    assert [line["epoch"] for line in trained.run.lines(METRICS)] == [1, 2]


def test_a_training_that_always_collapses_ends(tiny, tmp_path, collapse):
    collapse(*range(1, 30))
    trained, lines = train(tmp_path / "run", epochs=2, on_collapse="rollback")
    assert sum("back to epoch" in line for line in lines) == 5
    assert len(trained.run.lines(METRICS)) == 2


def test_a_loss_that_is_not_finite_is_rolled_back_too(faults, tmp_path):
    trained, lines = train(
        tmp_path / "run", epochs=2, objective="planted(at=12)", on_collapse="rollback"
    )
    assert sum("the loss is no longer finite in epoch 2" in line for line in lines) == 1
    assert all(math.isfinite(line["loss"]) for line in trained.run.lines(METRICS))


def killing(owner, name, when):
    """Return what makes a function end the process in its first call of which ``when`` is true."""

    def plant(monkeypatch):
        original = getattr(owner, name)

        def kill(*arguments, **settings):
            if when(*arguments):
                monkeypatch.setattr(owner, name, original)
                raise KeyboardInterrupt
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, kill)

    return plant


class Order(NoCallback):
    """Receives that the training continues after it has received that it starts."""

    def __init__(self):
        self.events = []

    def on_train_start(self, run, plan, steps):
        self.events.append("start")

    def on_resume(self, step):
        self.events.append("resume")


@pytest.mark.parametrize(
    ("kill", "collapses"),
    [
        (killing(loop, "update", lambda plan, state, *_: state.step == 2 * 9 + 3), []),
        # Before the rollback, in the midst of it, and before a good epoch is marked as one.
        (killing(loop, "read_checkpoint", lambda run, file: file == GOOD), []),
        (killing(loop, "save_last", lambda run, plan, state, *_: state.rollbacks), []),
        (killing(Run, "keep_epochs", lambda run, epochs: True), []),
        (killing(Run, "copy", lambda run, *_: len(run.metrics) == 1), [1]),
    ],
    ids=["after", "before", "saving", "cutting", "marking"],
)
def test_a_rolled_back_training_continues_bit_for_bit(
    tiny, tmp_path, collapse, monkeypatch, kill, collapses
):
    values = SMALL | {"perturb": "fgsm:0.1", "epochs": 3, "on_collapse": "rollback"}
    collapse(2)
    whole = curricula.train(**values, output=tmp_path / "whole")
    collapse(2)
    kill(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        curricula.train(**values, output=tmp_path / "killed", checkpoint_every=2)
    collapse(*collapses)
    order = Order()
    killed = curricula.resume(tmp_path / "killed", callbacks=[order])
    assert order.events[:2] == ["start", "resume"]
    for file in (METRICS, "evaluation.json"):
        assert (whole.run.path / file).read_bytes() == (killed.run.path / file).read_bytes()


def test_a_network_without_gradients_is_reported_after_an_interruption(
    faults, tmp_path, monkeypatch
):
    values = SMALL | {"epochs": 1, "objective": "planted(fault=zero)"}
    whole = curricula.train(**values, output=tmp_path / "whole")
    killing(loop, "evaluate_threats", lambda *_: True)(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        curricula.train(**values, output=tmp_path / "killed", checkpoint_every=1)
    killed = curricula.resume(tmp_path / "killed")
    assert killed.run.lines(METRICS) == whole.run.lines(METRICS)


def test_a_collapsed_epoch_does_not_end_the_wait_for_a_better_one(tiny, tmp_path, collapse):
    collapse(2)
    settings = {"schedule": ["constant"], "stop_after": 1, "on_collapse": "rollback"}
    _, lines = train(tmp_path / "run", epochs=2, **settings)
    assert sum("back to epoch 1" in line for line in lines) == 1


def test_the_probe_measures_the_training_threat_and_costs_little(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "MIN_IMAGES", 1)
    values = SMALL | {"perturb": "rot+pgd(0.1, steps=5)", "schedule": ["linear(until=1)"]}
    trained = curricula.train(**values, epochs=6, output=tmp_path / "run")
    metrics = trained.run.lines(METRICS)
    probed = [line["strong_accuracy"] for line in metrics if line["strong_accuracy"] is not None]
    assert probed
    _, texts = trained.run.load(LAST)
    state = json.loads(texts["state"])
    assert 0 < state["probe_passes"] <= monitor.MAX_SHARE * state["total_passes"]


@pytest.mark.parametrize(
    ("labels", "right"),
    [
        (torch.arange(10).repeat_interleave(20), 13),  # more than the probe takes
        (torch.arange(10).repeat(20), 13),
        (torch.arange(10).repeat_interleave(torch.tensor([155] + [5] * 9)), 100),
        (torch.tensor([0] * 5 + [1] * 195), 4),  # classes in turn would take all 5
    ],
)
def test_the_probe_takes_of_each_class_its_share_in_any_order(tiny, labels, right):
    """As an overall accuracy does, which the probe is compared with."""

    class Zero(nn.Module):
        """Right on class 0 alone, whatever the attack."""

        def __init__(self):
            super().__init__()
            self.logits_K = nn.Parameter(nn.functional.one_hot(torch.tensor(0), 10) * 9.0)

        def forward(self, x_NCHW):
            return self.logits_K + 0 * x_NCHW.flatten(1).mean(1, keepdim=True)

    plan = make_plan(SMALL | {"perturb": "pgd(0.1, steps=1)"})
    pixels = plan.data.train[torch.zeros(200, dtype=torch.int64)].load().pixels
    plan = attrs.evolve(plan, validation=Split(pixels=pixels, labels=labels))
    state = attrs.evolve(start(plan), model=Zero().eval(), passes=10**6)
    prober = monitor.Prober(plan, ModelVictim(state.model))
    found = prober.strong_accuracy(state, {"pgd": 0.5}, 0.5, 0.5, known=False)
    assert found == right / monitor.MAX_IMAGES


def test_a_suspicion_of_averaged_weights_is_checked_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "MIN_TRAIN_ACCURACY", 0.0)
    monkeypatch.setattr(monitor, "MAX_RATIO", 1e9)  # everything is a collapse
    values = SMALL | {"perturb": "fgsm:0.1", "schedule": ["constant"], "average": "ema"}
    trained = curricula.train(**values, epochs=4, output=tmp_path / "run")
    found = [line["strong_accuracy"] is not None for line in trained.run.lines(METRICS)]
    learned = [line["train_accuracy"] >= 0.2 for line in trained.run.lines(METRICS)]
    assert any(learned)
    assert found == [number == learned.index(True) for number in range(4)]


def test_at_full_strength_validation_is_the_probe(tiny, tmp_path):
    values = SMALL | {"perturb": "rot+pgd(0.1, steps=1)", "schedule": ["constant"]}
    trained = curricula.train(**values, epochs=1, output=tmp_path / "run")
    (line,) = trained.run.lines(METRICS)
    assert line["strong_accuracy"] == line["validation"]["joint"]


def test_without_an_attack_nothing_is_probed(tiny, tmp_path):
    (line,) = curricula.train(**SMALL, epochs=1, output=tmp_path / "run").run.lines(METRICS)
    assert line["strong_accuracy"] is None


class NoEvaluation(NoCallback):
    def on_eval_start(self, batches):
        raise KeyboardInterrupt


def test_a_real_collapse_is_noticed_in_its_epoch(tmp_path, monkeypatch):
    """One step of size eps 0.3 without a random start, on digits: PGD-10 then fools everything."""
    monkeypatch.setattr("curricula.evaluation.threats.VALIDATION_STEPS", 10)
    values = {
        "model": "lenet", "lr": 0.006, "perturb": "fgsm:0.3", "schedule": ["constant"],
        "epochs": 3, "seed": 100,
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        curricula.train(
            **values, compile="off", precision="float32", output=tmp_path / "run",
            callbacks=[NoEvaluation()],
        )  # fmt: skip
    metrics = Run.open(tmp_path / "run").lines(METRICS)
    collapsed = [
        line["train_accuracy"] > 0.5 and line["validation"]["joint"] < 0.1 for line in metrics
    ]
    assert any(collapsed)
    assert ["catastrophic overfitting" in line["findings"] for line in metrics] == collapsed
