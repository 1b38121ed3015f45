"""Frozen layers and the head's learning rate, against loops written out in plain torch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from fixtures.outcomes import outcome
from fixtures.tiny_training import BY_HAND
from safetensors.torch import load_file
from torch import nn

import curricula
from curricula.data.dataset import batches
from curricula.errors import UserError
from curricula.models import Normalise
from curricula.training.callbacks import NoCallback
from curricula.training.layers import choose_layers
from curricula.training.plan import make_plan
from curricula.training.run import LAST, METRICS

SETTINGS = {
    **BY_HAND,
    "momentum": 0.8,
    "weight_decay": 0.02,
    "lr_schedule": "step(0:1, 0.5:0.1)",
    "epochs": 2,
}
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.8, weight_decay=0.02),
    "adamw": lambda groups: torch.optim.AdamW(groups, weight_decay=0.02),
}


def by_hand(plan, make, *, frozen=(), eval_mode=(), head_lr=0.0):
    """Return the state dict after a training that torch alone does, with the names of the frozen
    parameters, and the numbers of the modules in eval mode, given."""
    torch.manual_seed(plan.config.seed)
    model = plan.build_model()
    order = torch.Generator().manual_seed(plan.config.seed)
    trained = {n: p for n, p in model.named_parameters() if n not in frozen}
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in trained
    rates, groups = [0.01], [{"params": [*trained.values()], "lr": 0.01}]
    if head_lr:
        head = [p for n, p in trained.items() if n.startswith("6.")]
        rest = [p for n, p in trained.items() if not n.startswith("6.")]
        rates, groups = [0.01, head_lr], [{"params": rest}, {"params": head}]
    optimizer = make([{**group, "lr": rate} for group, rate in zip(groups, rates, strict=True)])
    for epoch in range(2):
        for _, batch in batches(plan.data.train, plan.config.batch_size, generator=order):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 if epoch < 1 else 0.1)
            model.train()
            for number in eval_mode:
                model[number].eval()
            optimizer.zero_grad()
            F.cross_entropy(model(plan.data.images(batch.pixels)), batch.labels).backward()
            optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("fields", "by_torch"),
    [
        ({"freeze": ["1"]}, {"frozen": ("1.weight", "1.bias")}),
        ({"freeze": ["2"]}, {"frozen": ("2.weight", "2.bias"), "eval_mode": (2,)}),
        ({"freeze": ["2.weight"]}, {"frozen": ("2.weight",)}),  # its statistics move on
        (
            {"freeze": ["backbone"]},
            {"frozen": ("1.weight", "1.bias", "2.weight", "2.bias"), "eval_mode": (2,)},
        ),
        ({"head_lr": 0.05}, {"head_lr": 0.05}),
        (
            {"freeze": "[12].*", "head_lr": 0.05},
            {
                "frozen": ("1.weight", "1.bias", "2.weight", "2.bias"),
                "eval_mode": (2,),
                "head_lr": 0.05,
            },
        ),
    ],
)
def test_training_equals_a_plain_torch_loop(tiny, tmp_path, optimizer, fields, by_torch):
    settings = {**SETTINGS, "optimizer": optimizer, **fields}
    run = curricula.train(**settings, output=tmp_path / "run").run
    held = load_file(run.path / LAST)
    plan = make_plan(SETTINGS)
    make = OPTIMIZERS[optimizer]
    if by_torch.get("frozen") and "head_lr" in by_torch:
        expected = by_hand_head_only(plan, make)
    else:
        expected = by_hand(plan, make, **by_torch)
    for name, tensor in expected.items():
        assert torch.equal(held[f"model.{name}"], tensor), name


def by_hand_head_only(plan, make):
    """Return the state dict after a training by torch of the last layer alone, at a rate of 0.05,
    on features that are in eval mode."""
    torch.manual_seed(plan.config.seed)
    model = plan.build_model()
    order = torch.Generator().manual_seed(plan.config.seed)
    head = model[6]
    optimizer = make([{"params": head.parameters(), "lr": 0.05}])
    features = model[:6].eval()
    for epoch in range(2):
        for _, batch in batches(plan.data.train, plan.config.batch_size, generator=order):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 if epoch < 1 else 0.1)
            with torch.no_grad():
                x = features(plan.data.images(batch.pixels))
            optimizer.zero_grad()
            F.cross_entropy(head(x), batch.labels).backward()
            optimizer.step()
    return model.state_dict()


def test_nothing_moves_frozen_layers(tiny, tmp_path):
    # Weight decay, adversarial weight perturbation, an average and a rollback's halved rate.
    fields = {"awp": 0.01, "average": "ema(decay=0.5)", "weight_decay": 0.5, "accumulate": 2}
    settings = {**SETTINGS, **fields, "freeze": ["1", "2"], "perturb": "rot+pgd"}
    run = curricula.train(**settings, output=tmp_path / "run").run
    plan = make_plan(settings)
    torch.manual_seed(0)
    begin = plan.build_model().state_dict()
    held = load_file(run.path / LAST)
    for prefix in ("model", "average.module"):
        for name, tensor in begin.items():
            equal = torch.equal(held[f"{prefix}.{name}"], tensor)
            assert equal is (not name.startswith("6.")), name


def test_dropout_is_off_in_frozen_modules_only():
    model = nn.Sequential(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5)), nn.Linear(8, 4)
    )
    x = torch.rand(2, 1, 8, 8)
    layers = choose_layers(model, x, num_classes=4, name="m", freeze=["0"])
    model.train()
    layers.rest(model)
    assert [module.training for module in (model[0][2], model[1])] == [False, True]


def test_resumed_with_groups_and_frozen_layers_bit_for_bit(tiny, tmp_path):
    class Killed(KeyboardInterrupt):
        pass

    class KillAt(NoCallback):
        def on_step_end(self, update):
            if update.progress.step == 12:
                raise Killed

    fields = {"freeze": ["2"], "head_lr": 0.05, "optimizer": "adamw", "perturb": "rot+pgd"}
    curricula.train(**{**SETTINGS, **fields}, output=tmp_path / "whole")
    with pytest.raises(Killed):
        curricula.train(
            **{**SETTINGS, **fields},
            output=tmp_path / "killed",
            checkpoint_every=5,
            callbacks=[KillAt()],
        )
    curricula.resume(tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_metrics_report_the_first_groups_rate(tiny, tmp_path):
    run = curricula.train(**SETTINGS, head_lr=0.3, output=tmp_path / "run").run
    assert [line.lr for line in run.metrics] == pytest.approx([0.01, 0.001])
    assert run.path.joinpath(METRICS).exists()


class Wrapped(nn.Module):
    """A network whose last layers are not registered in the order in which they run."""

    def __init__(self, classes=4):
        super().__init__()
        self.scale = nn.BatchNorm1d(classes)
        self.classifier = nn.utils.parametrizations.weight_norm(nn.Linear(8, classes))
        self.token = nn.Parameter(torch.zeros(1, 8))
        self.stem = nn.Linear(64, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.scale(self.classifier(self.drop(self.stem(x.flatten(1))) + self.token))


def test_the_head_is_the_last_layer_that_runs_with_what_follows_it():
    layers = choose_layers(
        Wrapped(), torch.rand(2, 1, 8, 8), num_classes=4, name="m", freeze=["backbone"]
    )
    assert layers.head_modules == ("classifier", "scale")
    assert layers.frozen == {"token", "stem.weight", "stem.bias"}
    assert layers.frozen_modules == ("stem",)


def test_names_are_those_within_the_network():
    net = Wrapped()
    model = nn.Sequential(Normalise(), net)
    x = torch.rand(2, 1, 8, 8)
    layers = choose_layers(model, x, num_classes=4, name="m", freeze=["stem.*", "token"])
    assert layers.frozen == {"1.token", "1.stem.weight", "1.stem.bias"}
    assert layers.frozen_modules == ("1.stem",)


def test_choosing_layers_changes_no_mode_and_no_statistic():
    model = Wrapped().train()
    model.stem.eval()
    before = copy.deepcopy(model.state_dict())
    choose_layers(model, torch.rand(2, 1, 8, 8), num_classes=4, name="m", needs_head=True)
    training = [module.training for module in (model, model.scale, model.stem)]
    assert training == [True, True, False]
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (["layer1"], "freeze (--freeze) 'layer1' matches no layer of m; its layers: token"),
        (["stem.wieght"], "did you mean stem.weight"),
        (["drop"], "'drop' matches no layer of m"),  # has nothing to freeze
        ([""], "'' matches no layer of m"),
        (["stem", "Scale"], "did you mean scale?"),
        (["*"], "freezes all layers of m, so that nothing would be trained; its layers: token"),
        (["backbone", "classifier", "scale"], "freezes all layers"),
    ],
)
def test_a_pattern_that_fits_nothing_or_everything_is_one_line(freeze, message):
    with pytest.raises(UserError) as error:
        choose_layers(Wrapped(), torch.rand(2, 1, 8, 8), num_classes=4, name="m", freeze=freeze)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "end",
    [nn.Linear(8, 5), nn.Sequential(nn.Linear(8, 4), nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 5, 1))],
)
def test_a_head_that_is_not_known_is_one_line(end):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), end)
    with pytest.raises(UserError, match="does not end in a layer with 4 outputs"):
        choose_layers(model, torch.rand(2, 1, 8, 8), num_classes=4, name="m", needs_head=True)


def test_a_module_named_backbone_is_meant_by_its_name():
    model = nn.Module()
    model.backbone, model.neck, model.head = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 4)
    layers = choose_layers(
        model, torch.rand(2, 1, 8, 8), num_classes=4, name="m", freeze=["backbone"]
    )
    assert layers.frozen == {"backbone.weight", "backbone.bias"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": 3}, "freeze must be a list of texts, such as ['layer1.*'], not 3"),
        ({"freeze": [1]}, "freeze must be a list of texts"),
        ({"head_lr": -1.0}, "head_lr must be 0 or more"),
        ({"head_lr": 1e40}, "head_lr must be at most"),
        ({"freeze": ["nothing"]}, "matches no layer of model tinycnn"),
    ],
)
def test_wrong_values_are_one_line_and_write_nothing(tiny, tmp_path, fields, message):
    with pytest.raises(UserError) as error:
        curricula.train(**{**SETTINGS, **fields}, output=tmp_path / "run")
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_shared_layer_is_frozen_by_each_of_its_names():
    model = nn.Module()
    model.a = model.b = nn.Linear(8, 8)
    model.c = nn.Linear(8, 4)
    layers = choose_layers(model, torch.rand(2, 1, 8, 8), num_classes=4, name="m", freeze=["b"])
    assert layers.frozen == {"a.weight", "a.bias"}
