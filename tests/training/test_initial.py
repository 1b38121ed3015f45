"""Trainings that start from the weights of a run or a file."""

import json
import shutil

import attrs
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from fixtures.outcomes import outcome
from fixtures.tiny_training import BY_HAND
from safetensors.torch import load_file, save_file
from torch import nn

import curricula
from curricula.data.dataset import batches, load_data
from curricula.errors import UserError
from curricula.models import Normalise
from curricula.plugins import registry
from curricula.sweeps.runner import run_sweep
from curricula.sweeps.search import run_search
from curricula.sweeps.search_spec import parse_search
from curricula.sweeps.spec import parse_sweep
from curricula.training.callbacks import NoCallback
from curricula.training.config import read_toml
from curricula.training.objects import split_objects
from curricula.training.plan import make_plan
from curricula.training.run import BEST, CONFIG, LAST, Run

SETTINGS = {
    **BY_HAND,
    "lr_schedule": "constant",
    "epochs": 1,
}


class Killed(KeyboardInterrupt):
    pass


class KillAt(NoCallback):
    """Kill the training before an update."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, update):
        if update.progress.step == self.step:
            raise Killed


class Lines(NoCallback):
    """Keep the messages."""

    def __init__(self):
        self.lines = []

    def on_message(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return the folder of a trained run."""
    registry.use(registry.build_registry([TINY]))
    path = tmp_path_factory.mktemp("source") / "run"
    curricula.train(**SETTINGS, perturb="rot", seed=7, output=path)
    return path


@pytest.fixture
def weights(source):
    """Return the best weights of the run, by the names of the network."""
    return {
        name.removeprefix("model."): tensor for name, tensor in load_file(source / BEST).items()
    }


def by_hand(model, plan, lr=0.01):
    """Return the state dict of a model after an epoch of plain torch."""
    order = torch.Generator().manual_seed(plan.config.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    for _, batch in batches(plan.data.train, plan.config.batch_size, generator=order):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(plan.data.images(batch.pixels)), batch.labels).backward()
        optimizer.step()
    return model.state_dict()


def last(run):
    return {n.removeprefix("model."): t for n, t in load_file(run.path / LAST).items()}


@pytest.mark.parametrize("form", ["run", "safetensors", "checkpoint of lightning", "no normalise"])
def test_training_continues_the_weights_as_torch_does(tiny, source, weights, tmp_path, form):
    init, more = source, {}
    if form == "safetensors":
        save_file(weights, init := tmp_path / "net.safetensors")
    elif form == "checkpoint of lightning":
        renamed = {f"model.{name}": tensor for name, tensor in weights.items()}
        torch.save({"state_dict": renamed, "epoch": 3}, init := tmp_path / "net.ckpt")
    elif form == "no normalise":
        plain = {name: tensor for name, tensor in weights.items() if not name.startswith("0.")}
        torch.save(plain, init := tmp_path / "net.pt")
        more = {"normalise": "0.5/0.5"}
    lines = Lines()
    run = curricula.train(
        **SETTINGS, weight_decay=1e-4, init=init, **more, callbacks=[lines], output=tmp_path / "run"
    ).run
    plan = make_plan({**SETTINGS, "weight_decay": 1e-4})
    model = plan.build_model()
    model.load_state_dict(weights)
    for name, tensor in by_hand(model, plan).items():
        assert torch.equal(last(run)[name], tensor), name
    assert run.config.init.startswith(f"{init}#")
    assert f"init: {len(weights)} tensors from {init}" in lines.lines[0]


def test_the_run_supplies_its_model_and_data(tiny, source, tmp_path):
    names = ("data", "model")
    left_out = {name: value for name, value in SETTINGS.items() if name not in names}
    run = curricula.train(**left_out, init=source, output=tmp_path / "run").run
    assert [run.config.data, run.config.model] == ["tiny", Run(source).config.model]


def test_stated_data_and_models_come_before_those_of_the_run(tiny, source):
    with pytest.raises(UserError, match="do not fit model lenet"):
        make_plan({**SETTINGS, "init": str(source), "model": "lenet"})
    with pytest.raises(UserError, match="cifar10 is not in"):
        make_plan({"data": "cifar10", "data_root": "nowhere", "init": str(source)})


@pytest.mark.parametrize("form", ["run", "file"])
def test_a_new_head_for_other_classes(tiny, source, weights, tmp_path, form):
    init = source
    if form == "file":
        save_file(weights, init := tmp_path / "net.safetensors")
    data = "random(size=28, channels=1, classes=4, images=100)"
    settings = {**SETTINGS, "data": data, "batch_size": 10, "model": "tinycnn(dropout=0)"}
    with pytest.raises(UserError, match=r"\(10,.*or let the last layer be new, init_head new"):
        make_plan({**settings, "init": str(init)})
    fields = {"init_head": "new", "freeze": ["backbone"], "head_lr": 0.5}
    lines = Lines()
    run = curricula.train(
        **settings, **fields, init=init, callbacks=[lines], output=tmp_path / "run"
    ).run
    assert "new: 6.weight, 6.bias" in lines.lines[0]
    found = last(run)
    assert found["6.weight"].shape[0] == 4
    for name, tensor in weights.items():
        assert name.startswith("6.") or torch.equal(found[name], tensor), name
    torch.manual_seed(0)  # the head begins as that of a training from random weights
    plan = make_plan({**settings, **fields, "init": str(init)})
    begun = plan.build_model().state_dict()
    torch.manual_seed(0)
    fresh = make_plan(settings).build_model().state_dict()
    assert torch.equal(begun["6.weight"], fresh["6.weight"])


def test_a_run_whose_classes_are_in_a_different_order_is_refused(tiny, source, tmp_path):
    run = shutil.copytree(source, tmp_path / "named")
    identity = json.loads((run / "data.json").read_text())
    names = ["Zebra", "fire truck", *map(str, range(2, 10))]
    (run / "data.json").write_text(json.dumps({**identity, "classes": names}))
    data = attrs.evolve(load_data("tiny"), classes=("zebra", "Fire_truck", *names[2:]))
    turned = attrs.evolve(data, classes=(data.classes[1], data.classes[0], *names[2:]))
    renamed = attrs.evolve(data, classes=(data.classes[0], "lorry", *names[2:]))
    settings = {"init": run, "model": "tinycnn", "data": data, "freeze": "backbone"}
    assert curricula.train(**{**SETTINGS, **settings}, output=tmp_path / "same").results
    for other, verb in ((turned, "are in a different order from"), (renamed, "differ from")):
        given = {**SETTINGS, **settings, "data": other}
        with pytest.raises(UserError, match=f"{verb} those of run .*init_head new"):
            curricula.train(**given, output=tmp_path / "run")
        with pytest.raises(UserError, match=verb):
            curricula.evaluate(run, other, ["clean"], limit=1)
    texts, objects = split_objects({**SETTINGS, **settings, "data": turned, "init_head": "new"})
    assert make_plan(texts, objects=objects).initial  # a new head has no order yet


@pytest.mark.parametrize("step", [0, 5])
def test_a_killed_training_needs_its_initial_weights_only_before_its_first_checkpoint(
    tiny, source, tmp_path, step
):
    init = tmp_path / "init"
    shutil.copytree(source, init)
    settings = {**SETTINGS, "init": str(init), "freeze": ["2"], "head_lr": 0.05, "perturb": "rot"}
    curricula.train(**settings, output=tmp_path / "whole", baseline=True)
    path = tmp_path / "killed"
    with pytest.raises(Killed):
        curricula.train(
            **settings, output=path, baseline=True, checkpoint_every=3, callbacks=[KillAt(step)]
        )
    shutil.move(init, tmp_path / "moved")
    if not step:
        with pytest.raises(UserError, match=r"init: no such file"):
            curricula.resume(path)
        (tmp_path / "moved").rename(init)
        curricula.resume(path)
    else:
        with pytest.raises(UserError, match=r"init: no such file"):
            curricula.resume(path)  # the run is finished, and its baseline begins with them
        assert Run(path).holds("evaluation.json")
        (tmp_path / "moved").rename(init)
        curricula.resume(path)
    assert outcome(path) == outcome(tmp_path / "whole")
    assert outcome(path / "baseline") == outcome(tmp_path / "whole" / "baseline")


def test_a_repeated_run_refuses_other_weights(tiny, source, weights, tmp_path):
    save_file(weights, init := tmp_path / "net.safetensors")
    run = curricula.train(**SETTINGS, init=init, output=tmp_path / "run").run
    values = read_toml(run.path / CONFIG)
    again = curricula.train(**values, output=tmp_path / "again").run
    assert outcome(again.path) == outcome(run.path)
    weights["6.bias"][0] += 1
    save_file(weights, init)
    with pytest.raises(UserError, match=r"its weights are not those that the configuration"):
        curricula.train(**values, output=tmp_path / "third")
    assert not (tmp_path / "third").exists()
    curricula.train(**{**values, "init": str(init)}, output=tmp_path / "third")


def test_the_source_needs_neither_data_nor_plugins(tiny, source, tmp_path):
    init = tmp_path / "init"
    shutil.copytree(source, init)
    text = (init / CONFIG).read_text()
    text = text.replace('data = "tiny"', 'data = "gone"').replace('model = "tiny', 'model = "gone')
    (init / CONFIG).write_text(text)
    assert make_plan({**SETTINGS, "init": str(init)}).initial
    with pytest.raises(UserError, match=r"needs a plugin|unknown"):
        make_plan({"init": str(init)})


def test_foreign_weights_need_a_stated_normalisation(tiny, weights, tmp_path):
    plain = {name: tensor for name, tensor in weights.items() if not name.startswith("0.")}
    torch.save(plain, path := tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"do not state how the images were normalised .*--norm"):
        make_plan({**SETTINGS, "init": str(path)})
    plan = make_plan({**SETTINGS, "init": str(path), "normalise": "0.2/0.4"})
    layer = plan.build_model()[0]
    assert isinstance(layer, Normalise)
    assert [float(layer.mean), float(layer.std)] == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init": "nowhere"}, "nowhere: no such file"),
        ({"init": "{folder}"}, "is not a run folder"),
        ({"init": "{text}"}, "neither safetensors nor weights of torch"),
        ({"init": "{other}"}, "do not fit model tinycnn"),
        ({"init": "{source}", "init_head": "old"}, "init_head must be load or new, not 'old'"),
        ({"init_head": "new"}, "init_head new (--init-head new) needs the weights"),
        ({"init": "{source}", "model": "tinycnn(width=4)"}, "do not fit model tinycnn"),
        ({"init": "{source}#" + "0" * 32}, "its weights are not those"),
        ({"init": 3}, "init must be text"),
    ],
)
def test_wrong_weights_are_one_line_and_write_nothing(tiny, source, tmp_path, fields, message):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "other.pt")
    names = {
        "source": source,
        "folder": tmp_path,
        "text": tmp_path / "text.pt",
        "other": tmp_path / "other.pt",
    }
    fields = {k: v.format(**names) if isinstance(v, str) else v for k, v in fields.items()}
    with pytest.raises(UserError) as error:
        curricula.train(**{**SETTINGS, **fields}, output=tmp_path / "run")
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


SWEEP = """
[base]
data = "tiny"
model = "tinycnn"
epochs = 1
device = "cpu"
perturb = "rot"
init = "{init}"
freeze = ["1"]
[{section}]
{values}
[evaluation.threats]
clean = "clean"
spatial = "rot:30"
"""


@pytest.mark.parametrize("kind", ["sweep", "search"])
def test_all_cells_of_a_sweep_start_from_the_same_weights(tiny, weights, tmp_path, kind):
    save_file(weights, init := tmp_path / "net.safetensors")
    folder, cells = tmp_path / kind, "cells"

    def go():
        if kind == "sweep":
            text = SWEEP.format(init=init, section="axes", values="head_lr = [0.0, 0.1]")
            run_sweep(parse_sweep(text), folder)
        else:
            values = "head_lr = [0.01, 0.1]\n[search]\ntrials = 2"
            text = SWEEP.format(init=init, section="ranges", values=values)
            run_search(parse_search(text), folder)

    go()
    runs = [Run(path) for path in sorted((folder / cells).iterdir()) if path.is_dir()]
    assert [run.is_finished or run.holds("validation.json") for run in runs] == [True, True]
    assert len({run.config.init for run in runs}) == 1
    assert runs[0].config.init.startswith(f"{init}#")
    shutil.rmtree(runs[1].path)
    weights["6.bias"][0] += 1
    save_file(weights, init)
    with pytest.raises(UserError, match=r"\(?init\)? has changed"):
        go()


def test_starting_from_weights_leaves_the_global_random_state(tiny, source):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    make_plan({**SETTINGS, "init": str(source)})
    assert torch.equal(torch.get_rng_state(), before)


def test_old_configurations_have_no_initial_weights(tiny, source):
    values = json.loads(json.dumps(read_toml(source / CONFIG)))
    for name in ("init", "init_head", "freeze", "head_lr"):
        values.pop(name)
    config = make_plan(values).config
    assert (config.init, config.init_head, config.freeze, config.head_lr) == ("", "load", (), 0.0)
