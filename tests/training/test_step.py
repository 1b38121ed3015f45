"""An update against a plain loop of torch, and the feedback that adaptive schedules get."""

import copy

import attrs
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import curricula
from curricula.data.dataset import Split, batches
from curricula.evaluation.accuracy import evaluate_threats
from curricula.evaluation.threats import validation_threats
from curricula.interfaces import Progress
from curricula.training.config import EVALUATION_SEED
from curricula.training.plan import make_plan
from curricula.training.run import LAST, METRICS
from curricula.training.step import Networks, start, update

NETWORK = {"data": "tiny", "device": "cpu", "model": "tinycnn(dropout=0)", "precision": "float32"}
SETTINGS = {
    **NETWORK,
    "compile": "off",
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.8,
    "weight_decay": 0.02,
    "lr_schedule": "step(0:1, 0.5:0.1)",
    "epochs": 4,
}


def by_hand(plan, *, awp, decay):
    """Return the weights after training, their exponential average, and the mean of those after the
    last two epochs."""
    torch.manual_seed(plan.config.seed)
    model = plan.build_model().train()
    order = torch.Generator().manual_seed(plan.config.seed)
    weights = list(model.parameters())
    velocities = [torch.zeros_like(weight) for weight in weights]
    ema, ends, n = None, [], 0
    for epoch in range(4):
        for _, batch in batches(plan.data.train, plan.config.batch_size, generator=order):
            rate = 0.01 if epoch < 2 else 0.001
            x, y = plan.data.images(batch.pixels), batch.labels
            before = [weight.detach().clone() for weight in weights]
            if awp:
                proxy = copy.deepcopy(model)  # its batch norm sees extra batches
                F.cross_entropy(proxy(x), y).backward()
                for weight, other in zip(weights, proxy.parameters(), strict=True):
                    if weight.ndim > 1:
                        step = other.grad / other.grad.norm() * weight.detach().norm()
                        weight.data.add_(awp * step)
            gradients = torch.autograd.grad(F.cross_entropy(model(x), y), weights)
            for weight, old, gradient, velocity in zip(
                weights, before, gradients, velocities, strict=True
            ):
                velocity.mul_(0.8).add_(gradient + 0.02 * old)
                weight.data.copy_(old - rate * velocity)  # keeps the strides
            share = 1 - min(decay, (1 + n) / (10 + n))
            now = [weight.detach().clone() for weight in weights]
            ema = (
                now if ema is None else [a + share * (b - a) for a, b in zip(ema, now, strict=True)]
            )
            n += 1
        ends.append(now)
    return now, ema, [(a + b) / 2 for a, b in zip(*ends[2:], strict=True)]


@pytest.mark.parametrize(
    ("awp", "average", "which"), [(0.0, "ema(decay=0.7)", 1), (0.02, "swa(start=0.5)", 2)]
)
def test_training_equals_a_plain_torch_loop(tiny, tmp_path, awp, average, which):
    run = curricula.train(**SETTINGS, awp=awp, average=average, output=tmp_path / "run").run
    held = load_file(run.path / LAST)
    plan = make_plan({**SETTINGS, "awp": awp, "average": average})
    expected = by_hand(plan, awp=awp, decay=0.7)
    names = [name for name, _ in plan.build_model().named_parameters()]
    for prefix, weights in (("model", expected[0]), ("average.module", expected[which])):
        ours = torch.cat([held[f"{prefix}.{name}"].flatten() for name in names])
        theirs = torch.cat([weight.flatten() for weight in weights])
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_the_average_is_validated(tiny, tmp_path):
    settings = {**SETTINGS, "perturb": "rot+pgd", "lr": 0.02, "epochs": 2}
    settings["average"] = "ema(decay=0.98)"
    run = curricula.train(**settings, output=tmp_path / "run").run
    plan = make_plan(settings)
    threats = validation_threats(plan.curriculum.tree, plan.data.budgets)
    average = curricula.load_model(run, checkpoint="last")
    tensors = load_file(run.path / LAST)
    model = copy.deepcopy(average)
    model.load_state_dict({name: tensors[f"model.{name}"] for name in average.state_dict()})
    found = [
        {
            result.name: result.accuracy
            for result in evaluate_threats(
                network, plan.data, plan.validation, threats, seed=EVALUATION_SEED
            )
        }
        for network in (average, model)
    ]
    assert found[0] != found[1]
    assert run.lines(METRICS)[-1]["validation"] == found[0]


@pytest.mark.parametrize("awp", [0.0, 0.5])
def test_adaptive_schedules_get_the_results_of_the_unperturbed_weights(tiny, awp):
    """Not those of the perturbed weights; and for the right images."""
    rotation = {"perturb": "rot:1e-6", "schedule": ["earned(rate=0.25)"]}  # too small to matter
    plan = make_plan({**NETWORK, **rotation, "awp": awp})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = start(plan)
    networks = Networks.of(plan, state.model)
    shares = []
    order = torch.Generator().manual_seed(1)
    for step, (indices, batch) in enumerate(batches(plan.data.train, 60, generator=order)):
        network = copy.deepcopy(state.model).train()
        right = network(plan.data.images(batch.pixels)).argmax(1) == batch.labels
        progress = Progress(step=step, total_steps=3, epoch=0, total_epochs=1)
        done = update(plan, state, networks, indices, batch, progress)
        assert torch.equal(done.correct_N, right)
        assert torch.equal(state.schedules["rot"]["strength"][indices], 0.25 * right)
        shares.append(right.float().mean())
    assert 0 < shares[-1] < 1


def test_chance_is_the_share_of_the_most_frequent_class(tiny):
    plan = make_plan(NETWORK | {"perturb": "clean"})
    labels = torch.tensor([2, 0, 2, 1, 2])
    train = Split(pixels=plan.data.train.load().pixels[:5], labels=labels)
    assert attrs.evolve(plan, data=attrs.evolve(plan.data, train=train)).chance == 0.6
