"""The last checkpoint of a training, which may come from someone else."""

import json
import shutil
import time

import attrs
import pytest
import torch

import curricula
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.runtime.random_state import random_tensors, seeded
from curricula.training.callbacks import NoCallback
from curricula.training.checkpoint import MAX_ROLLBACKS, read_checkpoint, restore
from curricula.training.pass_counter import PassCounter
from curricula.training.plan import make_plan
from curricula.training.run import LAST, Run
from curricula.training.step import Networks, start

STEP = 12  # updates done, of two epochs of 9
CPU = torch.device("cpu")


class Killed(KeyboardInterrupt):
    pass


class Kill(NoCallback):
    def on_step_end(self, update):
        if update.progress.step == STEP:
            raise Killed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a training that was killed in its second epoch, and its plan."""
    from conftest import TINY

    before = registry.current()
    registry.use(registry.build_registry([TINY]))
    path = tmp_path_factory.mktemp("killed") / "run"
    values = {
        "data": "tiny", "model": "tinycnn(width=2)", "perturb": "rot+rot+pgd(0.1, steps=1)",
        "schedule": ["gated", "rot.2=per-image"], "average": "ema(decay=0.9)",
        "optimizer": "adamw", "epochs": 2, "precision": "float32",
    }  # fmt: skip
    with pytest.raises(Killed):
        curricula.train(**values, output=path, checkpoint_every=1, callbacks=[Kill()])
    plan = make_plan(values)
    registry.use(before)
    return path, plan


@pytest.fixture
def restoring(trained, tiny, tmp_path):
    """Return a function that restores the training's checkpoint after a change to what it holds."""
    path, plan = trained
    shutil.copytree(path, tmp_path / "run")
    run = Run.open(tmp_path / "run")

    def changed(
        change_values=lambda values: None, change_tensors=lambda tensors: None, settings=None
    ):
        changed_plan = attrs.evolve(plan, config=attrs.evolve(plan.config, **(settings or {})))
        tensors, texts = run.load(LAST)
        values = json.loads(texts["state"])
        values = change_values(values) or values
        tensors = change_tensors(tensors) or tensors
        run.save(LAST, tensors, {"state": json.dumps(values)})
        began = time.perf_counter()
        threads = torch.get_num_threads()
        try:
            with seeded(0, CPU):
                state = start(plan)
                networks = Networks.of(plan, state.model)
                passes = PassCounter.attach(networks)
                found = read_checkpoint(run, LAST)
                restore(changed_plan, state, networks, passes, found, run)
                return state, random_tensors(CPU)
        finally:
            torch.set_num_threads(threads)
            assert time.perf_counter() - began < 1

    return changed


def test_what_was_saved_is_restored(restoring):
    state, random = restoring()
    assert (state.step, state.epoch) == (STEP, 1)
    assert set(state.schedules) == {"rot", "rot.2", "pgd"}
    again, random_again = restoring()
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])
    assert all(torch.equal(random[name], random_again[name]) for name in random)


def put(**changes):
    return lambda values: values.update(changes)


VALUES = {
    "nothing": lambda values: {"a": 1},
    "a list": lambda values: [values],
    "step of another type": put(step="12"),
    "negative step": put(step=-1),
    "step beyond the plan": put(step=10**6, epoch=10**5),
    "step of another epoch": put(step=3),
    "huge step": put(step=10**18),
    "epoch beyond the plan": put(epoch=3),
    "no epoch": put(epoch=None),
    "best accuracy above 1": put(best_joint=1.5),
    "best accuracy of another type": put(best_joint=[]),
    "negative time": put(seconds=-5),
    "endless time": put(seconds=1e300),
    "no threads": put(threads=0),
    "negative threads": put(threads=-1),
    "threads of another type": put(threads="2"),
    "strength out of range": put(strengths={"rot": 0.5, "rot.2": 0.5, "pgd": 2}),
    "strength of another label": put(strengths={"rot": 0.5, "rot.2": 0.5, "x": 0.5}),
    "strengths of another type": put(strengths=[0.5, 0.5, 0.5]),
    "negative passes": put(passes={"gradient": -1, "forward": 0, "training": 0}),
    "passes of another type": put(passes=5),
    "negative learning rate": put(lr=-1),
    "learning rate of another type": put(lr={"a": 1}),
    "short form": put(form=[True]),
    "long form": put(form=[True, False, True, True]),
    "form of another type": put(form="ab"),
    "providers of another type": put(providers="curricula"),
    "providers of several types": put(providers=["curricula", 3, []]),
    "configuration of another type": put(config=[]),
    "configuration out of range": lambda values: values["config"].update(lr=-1),
    "negative rollbacks": put(rollbacks=-1),
    "rollbacks of a training without": put(rollbacks=1),
    "stopped, of a training without": put(stopped=True),
    "no providers": put(providers=[]),
    "provider without a name": put(providers=["curricula 0.1.0", ""]),
    "provider of two lines": put(providers=["curricula 0.1.0\n"]),
    "stopped of another type": put(stopped="no"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_wrong_value_is_one_line(restoring, name):
    with pytest.raises(UserError, match=r"last.safetensors: .*; train again") as raised:
        restoring(VALUES[name])
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("settings", "values", "fits"),
    [
        ({"on_collapse": "stop"}, {"stopped": True}, True),
        ({"stop_after": 3}, {"stopped": True}, True),
        ({"on_collapse": "rollback"}, {"rollbacks": MAX_ROLLBACKS}, True),
        ({"on_collapse": "rollback"}, {"rollbacks": MAX_ROLLBACKS + 1}, False),
        ({"on_collapse": "rollback"}, {"stopped": True}, False),
        ({"on_collapse": "stop"}, {"rollbacks": 1}, False),
    ],
)
def test_stops_and_rollbacks_are_those_of_the_settings(restoring, settings, values, fits):
    if fits:
        state, _ = restoring(put(**values), settings=settings)
        assert {name: getattr(state, name) for name in values} == values
    else:
        with pytest.raises(UserError, match=r"not of this training .*; train again"):
            restoring(put(**values), settings=settings)


def test_more_threads_than_the_machine_has_are_not_started(restoring, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    restoring(put(threads=10**18))
    assert 1 <= asked[0] <= 1024
    restoring(put(threads=1))
    assert asked[2] == 1


def replace(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name])})


def at(*positions, value):
    """Return a change of a tensor's elements."""

    def change(tensor):
        changed = tensor.clone()
        changed[list(positions)] = value
        return changed

    return change


def twister(left, position):
    """Return a change of the position in a state of torch's CPU generator."""

    def change(state):
        content = bytearray(state.tolist())
        content[8:12] = left.to_bytes(4, "little")
        content[16:24] = position.to_bytes(8, "little")
        return torch.tensor(list(content), dtype=torch.uint8)

    return change


def cut(tensor):
    return tensor[:-1]


def drop(name):
    return lambda tensors: {key: each for key, each in tensors.items() if key != name}


WEIGHT = "model.6.weight"
MOMENT = "optimizer.0.exp_avg"
TENSORS = {
    "nothing": lambda tensors: {"a": torch.zeros(1)},
    "a weight is missing": drop(WEIGHT),
    "a weight more": lambda tensors: tensors.update({"model.x": torch.zeros(1)}),
    "a weight of another shape": replace(WEIGHT, lambda weight: weight[:1]),
    "a weight of another type": replace(WEIGHT, lambda weight: weight.to(torch.float64)),
    "complex weights": replace(WEIGHT, lambda weight: weight.to(torch.complex64)),
    "no average": lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not name.startswith("average.")
    },
    "negative count of averages": replace("average.n_averaged", lambda count: count * 0 - 10),
    "huge count of averages": replace("average.n_averaged", lambda count: count + 10**15),
    "count of averages with a fraction": replace("average.n_averaged", lambda count: count + 0.5),
    "a moment is missing": drop(MOMENT),
    "a moment of another shape": replace(MOMENT, lambda moment: moment[:1]),
    "a moment of no parameter": lambda tensors: tensors.update(
        {"optimizer.99.exp_avg": torch.zeros(1)}
    ),
    "a moment with a letter for a number": lambda tensors: tensors.update(
        {"optimizer.x.y": torch.zeros(1)}
    ),
    "a moment of a very long number": lambda tensors: tensors.update(
        {f"optimizer.{'9' * 5000}.y": torch.zeros(1)}
    ),
    "negative optimiser step": replace("optimizer.0.step", lambda step: step * 0 - 1),
    "no optimiser step": replace("optimizer.0.step", lambda step: step * 0),
    "optimiser step that is NaN": replace("optimizer.0.step", lambda step: step * float("nan")),
    "a schedule is missing": drop("schedule.rot.2.strength"),
    "a schedule of another shape": replace("schedule.rot.2.strength", cut),
    "a schedule of another type": replace("schedule.rot.updates", lambda count: count.bool()),
    "a schedule's strength that is complex": replace(
        "schedule.rot.strength", lambda strength: strength * 1j
    ),
    "a sum of another shape": replace("sums.loss", lambda loss: loss[None]),
    "a count of another type": replace("sums.correct", lambda count: count.float()),
    "a negative count": replace("sums.correct", lambda count: count * 0 - 1),
    "a count above the images": replace("sums.correct", lambda count: count + 10**9),
    "a generator is missing": drop("random.perturbation"),
    "a short generator": replace("random.perturbation", cut),
    "an empty generator": replace("random.perturbation", lambda state: state[:0]),
    "a generator of another type": replace("random.order", lambda state: state.float()),
    "a generator beyond its numbers": replace("random.order", twister(624, 624)),
    "a generator far beyond its numbers": replace("random.augmentation", twister(1, 10**9)),
    "torch's state beyond its numbers": replace("random.torch", twister(400, 400)),
    "torch's state of another shape": replace("random.torch", lambda state: state[None]),
    "NumPy's position": replace("random.numpy", at(624, value=10**6)),
    "NumPy's negative position": replace("random.numpy", at(624, value=-1)),
    "NumPy's numbers": replace("random.numpy", at(5, value=-1)),
    "a short NumPy": replace("random.numpy", cut),
    "an empty NumPy": replace("random.numpy", lambda state: state[:0]),
    "NumPy's gauss": replace("random.numpy-gauss", lambda gauss: gauss.expand(2).contiguous()),
    "Python's position": replace("random.python", at(624, value=10**6)),
    "Python's numbers": replace("random.python", at(5, value=-(2**62))),
    "a short Python": replace("random.python", cut),
    "a Python with fractions": replace("random.python", lambda state: state + 0.5),
    "a Python in rows": replace("random.python", lambda state: state[None]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_wrong_tensor_is_one_line(restoring, name):
    with pytest.raises(UserError, match=r"last.safetensors: .*; train again") as raised:
        restoring(change_tensors=TENSORS[name])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000
