"""Trainings of objects that are handed over in Python: networks, data, schedules, losses."""

import contextlib
import copy
import math

import attrs
import pytest
import torch
from conftest import TINY
from fixtures.outcomes import outcome
from safetensors.torch import load_file
from torch import nn

import curricula
from curricula import Curriculum
from curricula.data import load_data
from curricula.errors import UserError
from curricula.expressions import bind
from curricula.interfaces import TrainingLoss
from curricula.plugins import registry
from curricula.training.callbacks import NoCallback
from curricula.training.config import read_toml
from curricula.training.run import BEST, CONFIG, LAST, Run

SETTINGS = {
    "device": "cpu",
    "precision": "float32",
    "compile": "off",
    "optimizer": "sgd",
    "epochs": 1,
    "lr": 0.01,
    "batch_size": 20,
}


class Net(nn.Module):
    """A user's own network, which normalises inside."""

    def __init__(self, width=8):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=4), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.1)
        )
        self.fc = nn.Linear(width * 36, 10)

    def forward(self, x):
        return self.fc(self.features((x - 0.1307) / 0.3081).flatten(1))


class Ramp:
    """A user's own schedule."""

    def __call__(self, progress, state):
        return progress.fraction


def late(progress, state):
    return max(0.0, 2 * progress.fraction - 1)


class Smooth:
    """A user's own loss."""

    attack_loss = "ce"

    def __call__(self, model, views, y_N):
        logits = model(views.perturbed)
        loss = nn.functional.cross_entropy(logits, y_N, label_smoothing=0.1)
        return TrainingLoss(value=loss, logits=logits)


class Ours(torch.optim.RAdam):
    """A user's own optimiser."""


class KillAt(NoCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, update):
        if update.progress.step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def net():
    torch.manual_seed(5)
    return Net()


@pytest.fixture
def data(tiny):
    return load_data("tiny")


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_an_own_network_is_trained_from_its_weights_and_not_changed(data, net, tmp_path):
    net.train()
    before = state_of(net)
    run = curricula.train(
        model=net,
        data=data,
        perturb="rot+pgd",
        **SETTINGS,
        output=tmp_path / "run",
        lr_schedule="constant",
    ).run
    assert equal(before, net.state_dict())
    assert net.training
    assert all(each.requires_grad for each in net.parameters())
    config = run.config
    assert [config.model, config.data] == ["given(Net)", "given(DataSet)"]
    assert config.init.startswith("given(Net)#")
    # A rate of almost nothing shows where the training starts.
    still = {**SETTINGS, "lr": 1e-30, "weight_decay": 0.0}
    run = curricula.train(model=net, data=data, **still, output=tmp_path / "still").run
    found = {n.removeprefix("model."): t for n, t in load_file(run.path / LAST).items()}
    for name, each in net.named_parameters():
        assert torch.allclose(found[name], each, rtol=0, atol=1e-20), name


def test_the_objects_train_as_the_texts_do(tiny, tmp_path):
    torch.manual_seed(0)
    texts = {
        "data": "tiny",
        "model": "tinycnn(dropout=0)",  # which draws from the global random state
        "perturb": "rot+pgd(0.1, steps=1)",
        "schedule": ["rot=constant", "pgd=linear(until=0.5)"],
        "objective": "trades(beta=2)",
    }
    expected = curricula.train(**texts, **SETTINGS, output=tmp_path / "texts").run
    data = load_data("tiny")
    curriculum = Curriculum.parse(
        texts["perturb"], texts["schedule"], budgets=data.budgets, defaults=data.attack_defaults
    )
    torch.manual_seed(0)
    model = curricula.models.build_model("tinycnn(dropout=0)", "tiny")
    found = curricula.train(
        data=data,
        model=model,
        perturb=curriculum,
        objective="trades(beta=2)",
        **SETTINGS,
        output=tmp_path / "objects",
    ).run
    assert (expected.path / "metrics.jsonl").read_text() == (
        found.path / "metrics.jsonl"
    ).read_text()
    assert found.config.perturb == expected.config.perturb
    assert found.config.schedule == expected.config.schedule


def test_bound_expressions_schedules_and_losses(data, net, tmp_path):
    run = curricula.train(
        model=net,
        data=data,
        perturb=bind("rot:20+pgd(0.1, steps=1)"),
        schedule={"rot": Ramp(), "pgd": late},
        objective=Smooth(),
        lr_schedule=lambda progress: 1 - progress.fraction,
        **SETTINGS,
        output=tmp_path / "run",
    ).run
    values = read_toml(run.path / CONFIG)
    assert values["perturb"].startswith("rot(20")
    assert values["schedule"] == ["rot=given(Ramp)", "pgd=given(late)"]
    assert values["objective"] == "given(Smooth)"
    assert values["lr_schedule"] == "given(lambda)"
    last = run.metrics[-1]
    assert last.strength["rot"] == pytest.approx(8 / 9)  # of 9 updates
    assert last.strength["pgd"] == pytest.approx(7 / 9)
    assert last.lr == pytest.approx(0.01 / 9)


@pytest.mark.parametrize(
    "make",
    [torch.optim.RAdam, lambda params: torch.optim.RAdam(params, weight_decay=0.02), Ours],
    ids=["class", "function", "own"],
)
def test_an_optimiser_of_torch_updates_as_it_does_alone(data, tmp_path, make):
    torch.manual_seed(5)
    net = Net()
    net.features[3].p = 0.0
    settings = {**SETTINGS, "weight_decay": 0.02, "lr_schedule": "constant", "head_lr": 0.03}
    settings |= {"model": net, "data": data, "optimizer": make}
    run = curricula.train(**settings, output=tmp_path / "run").run
    assert run.config.optimizer.startswith("given(")
    groups = [
        {"params": [each for name, each in net.named_parameters() if "fc" not in name]},
        {"params": net.fc.parameters(), "lr": 0.03},
    ]
    alone = torch.optim.RAdam(groups, lr=0.01, weight_decay=0.02)
    train, _ = data.with_validation()
    train = train.train
    order = torch.Generator().manual_seed(0)
    net.to(memory_format=torch.channels_last).train()
    for _, batch in curricula.batches(train, 20, generator=order):
        alone.zero_grad()
        nn.functional.cross_entropy(net(data.images(batch.pixels)), batch.labels).backward()
        alone.step()
    found = {n.removeprefix("model."): t for n, t in load_file(run.path / LAST).items()}
    for name, tensor in net.state_dict().items():
        assert torch.allclose(found[name], tensor, atol=1e-6), name


def test_a_training_with_an_own_optimiser_is_resumed_bit_for_bit(data, net, tmp_path):
    settings = {**SETTINGS, "model": net, "data": data, "optimizer": torch.optim.NAdam}
    curricula.train(**settings, output=tmp_path / "whole")
    path = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        curricula.train(**settings, output=path, checkpoint_every=2, callbacks=[KillAt(4)])
    with pytest.raises(UserError, match="optimizer=NAdam"):
        curricula.resume(path, model=net, data=data)
    with pytest.raises(UserError, match=r"optimizer given\(NAdam\), not given\(RAdam\)"):
        curricula.resume(path, model=net, data=data, optimizer=torch.optim.RAdam)
    curricula.resume(path, model=net, data=data, optimizer=torch.optim.NAdam)
    assert outcome(path) == outcome(tmp_path / "whole")


def test_one_schedule_for_all(data, net, tmp_path):
    run = curricula.train(
        model=net, data=data, perturb="rot:20+trans:2", schedule=late, **SETTINGS,
        output=tmp_path / "run",
    ).run  # fmt: skip
    assert run.config.schedule == ("rot=given(late)", "trans=given(late)")


OBJECTS = {
    "perturb": "rot:20+pgd(0.1, steps=1)",
    "schedule": {"rot": Ramp(), "pgd": "constant"},
    "objective": Smooth(),
    "freeze": ["features.0"],
    "head_lr": 0.05,
}


@pytest.mark.parametrize("step", [0, 4])
def test_resumed_with_the_same_objects_bit_for_bit(data, net, tmp_path, step):
    settings = {**SETTINGS, **OBJECTS, "model": net, "data": data}
    curricula.train(**settings, output=tmp_path / "whole", baseline=True)
    path = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        curricula.train(
            **settings, output=path, baseline=True, checkpoint_every=2, callbacks=[KillAt(step)]
        )
    again = {"model": net, "data": data, "schedule": {"rot": Ramp()}, "objective": Smooth()}
    with pytest.raises(UserError, match=r"given in Python: give them again, resume\(RUN, model=N"):
        curricula.resume(path)
    with pytest.raises(UserError, match=r"again, resume\(RUN, objective=Smooth\)"):
        curricula.resume(
            path,
            **{**again, "objective": None}
            if False
            else {k: v for k, v in again.items() if k != "objective"},
        )
    with pytest.raises(UserError, match=r"again, resume\(RUN, schedule=\{'rot': ...\}\)"):
        curricula.resume(path, **{k: v for k, v in again.items() if k != "schedule"})
    with pytest.raises(UserError, match=r"states its lr_schedule itself"):
        curricula.resume(path, **again, lr_schedule=lambda progress: 1.0)
    with pytest.raises(UserError, match=r"rot given\(Ramp\), not given\(late\)"):
        curricula.resume(path, **{**again, "schedule": {"rot": late}})
    other = attrs.evolve(data, train=data.train[slice(150)])
    with pytest.raises(UserError, match="images of tiny have changed"):
        curricula.resume(path, **{**again, "data": other})
    if not step:  # no checkpoint yet: it begins again from the network's weights
        changed = copy.deepcopy(net)
        changed.fc.bias.data[0] += 1
        with pytest.raises(UserError, match="not those that the training began with"):
            curricula.resume(path, **{**again, "model": changed})
    else:
        with pytest.raises(UserError, match=r"last.safetensors: .* other logits"):
            curricula.resume(path, **{**again, "model": OTHERS["activation"]()})
    curricula.resume(path, **again)
    assert outcome(path) == outcome(tmp_path / "whole")
    assert outcome(path / "baseline") == outcome(tmp_path / "whole" / "baseline")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    registry.use(registry.build_registry([TINY]))
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("given") / "run"
    return curricula.train(
        model=Net(), data=load_data("tiny"), perturb="rot:20", **SETTINGS, output=path
    ).run


def test_such_a_run_is_measured_by_handing_the_objects_again(run, data):
    with pytest.raises(UserError, match="was given in Python, as given"):
        curricula.load_model(run.path)
    assert curricula.evaluate(run, data, ["clean"], limit=1)[0].n == 1  # has the network still
    model = curricula.load_model(run, model=Net())
    best = load_file(run.path / BEST)
    assert torch.equal(model.fc.bias, best["model.fc.bias"])
    expected = run.results("test")[0].accuracy
    found = curricula.evaluate(model, data, ["clean"])[0].accuracy
    assert math.isclose(found, expected)


class Leaky(Net):
    """The same names and shapes of weights, another function."""

    def forward(self, x):
        return self.fc(nn.functional.leaky_relu(self.features(x) - 0.5, 0.3).flatten(1))


class Unnormalised(Net):
    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


def _with(change):
    net = Net()
    change(net)
    return net


OTHERS = {
    "forward": lambda: Leaky(),
    "normalisation": lambda: Unnormalised(),
    "activation": lambda: _with(lambda net: net.features.__setitem__(2, nn.Tanh())),
    "stride": lambda: _with(lambda net: setattr(net.features[0], "dilation", (2, 2))),
    "random": lambda: _with(lambda net: net.register_forward_hook(
        lambda *found: found[2] + torch.randn(())
    )),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_a_network_that_computes_something_else_is_refused(run, other):
    for checkpoint in ("best", "last"):
        with pytest.raises(UserError, match=r"returns other logits .*; give the same class"):
            curricula.load_model(run, model=OTHERS[other](), checkpoint=checkpoint)


def test_rounding_of_another_machine_is_not_another_network(run):
    net = Net()
    net.register_forward_hook(lambda module, images, logits: logits * (1 + 1e-3))
    assert curricula.load_model(run, model=net)
    net.register_forward_hook(lambda module, images, logits: logits * 1.03)
    with pytest.raises(UserError, match="other logits"):
        curricula.load_model(run, model=net)


class Noisy(Net):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))


def test_a_network_whose_logits_are_random_has_no_probe(data, tmp_path):
    path = tmp_path / "run"
    net = Noisy()
    torch.manual_seed(3)
    curricula.evaluate(net, data, ["clean"], limit=5, draws=1, output=path)
    assert "probe" not in Run(path).load(BEST)[1]
    assert curricula.load_model(path, model=Noisy())


def test_a_run_of_own_data_is_measured_on_them_again(data, tmp_path):
    run = curricula.train(data=data, model="tinycnn", **SETTINGS, output=tmp_path / "run").run
    with pytest.raises(UserError, match="were given in Python"):
        curricula.evaluate(run, threats=["clean"])
    found = curricula.evaluate(run, data, ["clean"])[0].accuracy
    assert found == run.results("test")[0].accuracy


def test_a_copied_configuration_says_what_is_missing(run, tiny, tmp_path):
    values = read_toml(run.path / CONFIG)
    with pytest.raises(UserError, match=r"init given\(Net\)#.*: the network was given in Python"):
        curricula.train(**values, output=tmp_path / "again")
    torch.manual_seed(5)
    again = curricula.train(
        **{**values, "model": Net(), "data": load_data("tiny")}, output=tmp_path / "again"
    ).run
    assert outcome(again.path) == outcome(run.path)


def test_the_page_and_the_comparison_of_such_runs(run, data, tmp_path):
    from curricula.reporting.report import report

    text = report(run.path).read_text()
    assert "given(Net)" in text
    torch.manual_seed(5)
    other = curricula.train(
        model=Net(), data=data, perturb="rot:20", **{**SETTINGS, "lr": 0.02}, output=tmp_path / "b"
    ).run
    assert curricula.compare([run.path, other.path]).rows
    turned = attrs.evolve(data, test=data.test[torch.arange(59, -1, -1)])
    third = curricula.train(
        model=Net(), data=turned, perturb="rot:20", **SETTINGS, output=tmp_path / "c"
    ).run
    with pytest.raises(UserError, match="measure both on the same images"):
        curricula.compare([run.path, third.path])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": Net}, "model must be text or a torch.nn.Module, not <class"),
        ({"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(10))}, "without a shape (1.weight)"),
        ({"model": Net().half()}, "of torch.float16, too coarse for updates"),
        ({"model": 3}, "model must be text or a torch.nn.Module, not 3"),
        ({"data": 3}, "data must be text or data, not 3"),
        (
            {"data": (torch.rand(20, 1, 28, 28), torch.arange(20) % 10)},
            "in Python, give data={'train'",
        ),
        ({"objective": nn.CrossEntropyLoss()}, "objective must be text or an objective"),
        ({"schedule": 3}, "schedule must be"),
        ({"schedule": {"pgd": late}}, "no perturbation is called 'pgd' here"),
        ({"schedule": {"rot": 3}}, "schedule must be text or a function"),
        ({"schedule": lambda progress: 1.0}, "the schedule of rot, given(lambda), failed"),
        (
            {"schedule": lambda progress, state: "much"},
            "the schedule of rot, given(lambda), failed (could not",
        ),
        ({"schedule": lambda progress, state: 2.0}, "gave a strength of 2; it must lie from 0"),
        ({"lr_schedule": lambda: 1.0}, "lr_schedule given(lambda) failed"),
        ({"lr_schedule": lambda progress: math.nan}, "lr_schedule given(lambda) gave nan"),
        ({"lr_schedule": lambda progress: -1}, "lr_schedule given(lambda) gave -1"),
        (
            {"perturb": 3},
            "perturb must be text, an expression from curricula.expressions.bind or a Curr",
        ),
        ({"perturb": Curriculum.parse("rot:20"), "schedule": late}, "schedule is stated twice"),
        ({"optimizer": 0.1}, "optimizer must be text or a class or function of the parameters"),
        ({"optimizer": torch.optim.Optimizer}, "optimizer given(Optimizer) failed"),
        ({"optimizer": lambda params: params}, "must return a torch.optim.Optimizer, not ["),
        ({"optimizer": torch.optim.LBFGS}, "given(LBFGS)"),
        ({"lr_schedule": 0.1}, "lr_schedule must be text or a function"),
        ({"model": nn.Flatten()}, "model given(Flatten) in eval mode returns an output of shape"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(784, 5))}, "10"),
    ],
)
def test_wrong_objects_are_one_line_and_write_nothing(data, net, tmp_path, fields, message):
    values = {"model": net, "data": data, "perturb": "rot:20", **SETTINGS, **fields}
    with pytest.raises(UserError) as error:
        curricula.train(**values, output=tmp_path / "run")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["autocast", "float64", "no_grad", "inference"])
def test_a_training_does_not_depend_on_the_modes_of_the_caller(mode, data, net, tmp_path):
    settings = {**SETTINGS, "model": net, "data": data, "epochs": 1}
    curricula.train(**settings, output=tmp_path / "plain")
    dtype = torch.get_default_dtype()
    entered = {
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "float64": contextlib.nullcontext,
        "no_grad": torch.no_grad,
        "inference": torch.inference_mode,
    }[mode]
    try:
        torch.set_default_dtype(torch.float64 if mode == "float64" else dtype)
        with entered():
            curricula.train(**settings, output=tmp_path / "other")
            assert torch.is_grad_enabled() == (mode not in ("no_grad", "inference"))
        assert torch.get_default_dtype() == (torch.float64 if mode == "float64" else dtype)
    finally:
        torch.set_default_dtype(dtype)
    assert outcome(tmp_path / "other") == outcome(tmp_path / "plain")
