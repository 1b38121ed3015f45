"""The optimisers of curricula are those of torch, number by number, and those of plugins continue
exactly."""

import copy
import json
from pathlib import Path

import attrs
import pytest
import torch
from conftest import TINY
from fixtures.outcomes import outcome
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.plugins import registry
from curricula.sweeps.folder import different_field
from curricula.sweeps.spec import Cell
from curricula.training.callbacks import NoCallback
from curricula.training.config import COMMON_TRAINING, merge
from curricula.training.optimizers import SGD, AdamW, build_optimizer, resolve_optimizer
from curricula.training.run import LAST, Run

OPTIMISING = Path(__file__).parents[1] / "fixtures" / "optimising.py"
SMALL = {
    "data": "tiny",
    "model": "tinycnn(width=2)",
    "epochs": 2,
    "precision": "float32",
    "perturb": "rot",
}


@pytest.fixture
def plugin():
    """Register the tiny data set and the optimisers of the fixture."""
    registry.use(registry.build_registry([TINY, OPTIMISING]))


def configured(optimizer, **fields):
    return merge(COMMON_TRAINING, {"model": "m"}, {"optimizer": optimizer, **fields})


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (AdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ],
)
def test_updates_and_states_are_those_of_torch(ours, theirs, settings, generator):
    x = torch.rand((8, 3), generator=generator)
    model = nn.Linear(3, 2)
    found = []
    for optimizer_class in (ours, theirs):
        network = copy.deepcopy(model)
        optimizer = optimizer_class(network.parameters(), **settings)
        for factor in (1.0, 0.5, 0.25):
            optimizer.param_groups[0]["lr"] = settings["lr"] * factor
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
        found.append((network.state_dict(), optimizer.state_dict()))
    (weights, state), (expected_weights, expected_state) = found
    assert all(torch.equal(weights[name], expected_weights[name]) for name in expected_weights)
    assert state["param_groups"] == expected_state["param_groups"]
    for index, values in expected_state["state"].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(state["state"][index][name]), torch.as_tensor(value))


def test_step_hooks_are_called():
    network = nn.Linear(2, 1)
    called = []
    optimizer = SGD(network.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: called.append(True))
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert called == [True]


@pytest.mark.parametrize(
    ("text", "theirs", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9}),
        ("sgd(nesterov=true)", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ("adamw", torch.optim.AdamW, {}),
        ("adamw(beta1=0.8, beta2=0.95, eps=1e-3)", torch.optim.AdamW,
         {"betas": (0.8, 0.95), "eps": 1e-3}),
    ],
)  # fmt: skip
def test_an_expression_builds_torchs_optimiser(text, theirs, settings, generator):
    x = torch.rand((8, 3), generator=generator)
    first = nn.Linear(3, 2)
    found = []
    for ours in (True, False):
        network = copy.deepcopy(first)
        groups = [{"params": [*network.parameters()], "lr": 0.1, "base_lr": 0.1}]
        config = configured(text, lr=0.1, weight_decay=0.01)
        optimizer = (
            build_optimizer(config, groups).value
            if ours
            else theirs(network.parameters(), lr=0.1, weight_decay=0.01, **settings)
        )
        for _ in range(5):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
        found.append(torch.cat([each.flatten() for each in network.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("sgd", "sgd(nesterov=false)"),
        ("adamw", "adamw(beta1=0.9, beta2=0.999, eps=1e-08)"),
        ("adamw(0.8)", "adamw(beta1=0.8, beta2=0.999, eps=1e-08)"),
        ("lion(beta1=0.8)", "lion(beta1=0.8, beta2=0.99)"),
        ("optimising/lion", "optimising/lion(beta1=0.9, beta2=0.99)"),
        ("late", "late(beta1=0.9, beta2=0.99)"),
    ],
)
def test_the_printed_optimiser_builds_the_same(plugin, text, printed):
    before = torch.get_rng_state()
    assert resolve_optimizer(configured(text)) == printed
    assert resolve_optimizer(configured(printed)) == printed
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("adamw(beta1=1)", {}, "adamw(beta1=1): beta1 must lie from 0 to below 1, not 1"),
        ("adamw(eps=0)", {}, "adamw(eps=0): eps must be above 0, not 0"),
        ("sgd(nesterov=true)", {"momentum": 0.0}, "needs a momentum (--momentum) above 0"),
        ("sgd(lr=0.1)", {}, "lr is a setting; write lr (--lr)"),
        ("sgd(weight_decay=0)", {}, "write weight_decay (--weight-decay)"),
        ("sgd(momentun=1)", {}, "unknown argument 'momentun'; optimizer 'sgd' takes nesterov"),
        ("sgd(params=1)", {}, "unknown argument 'params'"),
        ("adamw(betas=0.9:0.95)", {}, "takes beta1, beta2, eps; did you mean beta"),
        ("plain", {"weight_decay": 0.1}, "plain: it has no weight decay: set weight_decay (--we"),
        ("counts", {"weight_decay": 0.0}, "counts: its state count is 2, not a tensor"),
        ("lbfgs", {"weight_decay": 0.0}, "lbfgs("),
        ("no-optimizer", {}, "it must be a torch.optim.Optimizer, not 3"),
        ("lion(beta1=2)", {}, "lion(beta1=2): beta1 must lie from 0 to below 1, not 2"),
        ("lionn", {}, "unknown optimizer 'lionn': did you mean lion"),
        ("lion+sgd", {}, "expected a single name or call"),
    ],
)
def test_a_wrong_optimiser_is_one_line_before_any_work(plugin, tmp_path, text, fields, message):
    with pytest.raises(UserError) as caught:
        curricula.train(**SMALL, **fields, optimizer=text, output=tmp_path / "run")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "run").exists()


class Killed(KeyboardInterrupt):
    """Imitate SIGKILL: nothing catches it."""


@attrs.define
class KillAt(NoCallback):
    """Kill the training after a number of updates."""

    updates: int

    def on_step_end(self, update):
        self.updates -= 1
        if not self.updates:
            raise Killed


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": "lion(beta1=0.8)", "lr_schedule": "poly(power=3)", "head_lr": 0.02},
        {"optimizer": "late", "lr_schedule": "cosine(warmup=0.1, cycles=2)"},
        {"optimizer": "plain", "weight_decay": 0.0, "lr_schedule": "constant(warmup=0.2)"},
        {"optimizer": "nadam(betas=0.8:0.95)", "lr": 0.001},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd(nesterov=true)"},
    ],
    ids=lambda values: values["optimizer"].partition("(")[0],
)
def test_a_training_with_any_optimiser_continues_exactly(plugin, tmp_path, values):
    curricula.train(**SMALL, **values, output=tmp_path / "whole")
    with pytest.raises(Killed):
        curricula.train(
            **SMALL,
            **values,
            output=tmp_path / "run",
            checkpoint_every="4",
            callbacks=[KillAt(14)],
        )
    done = curricula.resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    names = done.run.environment.names
    for kind in ("optimizer", "lr_schedule"):
        name = getattr(done.run.config, kind).partition("(")[0]
        assert names[kind][name].source in ("distribution", "file")


def test_a_run_that_stated_fewer_defaults_continues(plugin, tmp_path):
    curricula.train(**SMALL, optimizer="sgd", lr_schedule="cosine", output=tmp_path / "whole")
    path = tmp_path / "run"
    with pytest.raises(Killed):
        curricula.train(
            **SMALL,
            optimizer="sgd",
            lr_schedule="cosine",
            output=path,
            checkpoint_every="4",
            callbacks=[KillAt(9)],
        )
    run = Run.open(path)
    text = (path / "config.toml").read_text()
    new = text.replace("sgd(nesterov=false)", "sgd").replace(
        "cosine(warmup=0, cycles=1, mult=1)", "cosine"
    )
    assert len(new) < len(text)
    (path / "config.toml").write_text(new)
    tensors, texts = run.load(LAST)
    state = json.loads(texts["state"])
    state["config"] |= {"optimizer": "sgd", "lr_schedule": "cosine"}
    run.save(LAST, tensors, {"state": json.dumps(state)})
    curricula.resume(path)
    weights, _ = run.load(LAST)
    expected, _ = Run.open(tmp_path / "whole").load(LAST)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_sweep_knows_its_cells_of_earlier_versions(plugin):
    cell = Cell(labels={}, values={})
    new = configured("sgd(nesterov=false)", lr_schedule="cosine(warmup=0, cycles=1, mult=1)")
    old = attrs.evolve(new, optimizer="sgd", lr_schedule="cosine")
    assert different_field(new, old, cell) is None
    assert different_field(new, attrs.evolve(old, optimizer="adamw"), cell) == "optimizer"
    assert different_field(new, attrs.evolve(old, lr_schedule="constant"), cell) == "lr_schedule"
    assert different_field(new, attrs.evolve(old, lr=0.5), cell) == "lr"


def test_a_checkpoint_with_a_foreign_state_is_refused(plugin, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        curricula.train(
            **SMALL, optimizer="lion", output=path, checkpoint_every="4", callbacks=[KillAt(9)]
        )
    run = Run.open(path)
    tensors, texts = run.load(LAST)
    for name, change, message in (
        ("optimizer.0.mean", lambda t: t.double(), "torch.float64"),
        ("optimizer.0.mean", lambda t: t.flatten(), "of shape"),
        ("optimizer.0.count", lambda t: t.float(), "torch.float32 of shape"),
        ("optimizer.0.late", lambda t: torch.zeros(7), "of shape"),
        ("optimizer.99.mean", lambda t: torch.zeros(7), "more parameters than the model"),
        ("optimizer.0.mean", None, "is missing"),
    ):
        changed = dict(tensors)
        if change is None:
            del changed[name]
        else:
            changed[name] = change(tensors.get(name))
        run.save(LAST, changed, {"state": texts["state"]})
        (path / "previous.safetensors").unlink(missing_ok=True)
        with pytest.raises(UserError, match=message):
            curricula.resume(path)


def test_an_optimiser_is_tried_once_before_the_training():
    built = []

    def counted(params, lr):
        built.append(torch.optim.SGD(params, lr=lr))
        return built[-1]

    config = merge(COMMON_TRAINING, {"model": "lenet", "optimizer": "given(counted)"})
    assert resolve_optimizer(config, counted) == "given(counted)"
    assert len(built) == 1
