"""Averages of the weights, and adversarial weight perturbation."""

import attrs
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import curricula
from curricula.errors import UserError
from curricula.training.awp import adversarial_weight_perturbation
from curricula.training.compile_choice import TrialUpdates
from curricula.training.plan import make_plan
from curricula.training.run import LAST, METRICS
from curricula.training.weight_averaging import averaged, parse_averaging


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


X = torch.rand((6, 1, 4, 4), generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1, 0, 2])


def test_an_exponential_average_follows_its_recurrence():
    model = network()
    average = averaged(model, parse_averaging("ema(decay=0.5)").value)
    expected = None
    for n in range(12):
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_()
        average.update_parameters(model)
        weight = model[0].weight.detach()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = weight.clone() if n == 0 else decay * expected + (1 - decay) * weight
    torch.testing.assert_close(average.module[0].weight.detach(), expected)


def test_a_stochastic_average_is_the_mean_with_its_buffers():
    model = network().train()
    average = averaged(model, parse_averaging("swa").value)
    weights, means = [], []
    for _ in range(5):
        with torch.no_grad():
            model[4].weight.normal_()
        model(torch.rand(6, 1, 4, 4))
        average.update_parameters(model)
        weights.append(model[4].weight.detach().clone())
        means.append(model[1].running_mean.clone())
    torch.testing.assert_close(average.module[4].weight.detach(), torch.stack(weights).mean(0))
    torch.testing.assert_close(average.module[1].running_mean, torch.stack(means).mean(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ewma", "unknown average 'ewma'; known: none, ema, swa"),
        ("none(1)", "unknown average"),
        ("ema(decay=1)", "'decay' must be < 1"),
        ("swa(start=-1)", "'start' must be >= 0"),
        ("ema(rate=0.5)", "rate"),
    ],
)
def test_wrong_averages_are_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_averaging(text)
    assert "\n" not in str(caught.value)


def loss_of(model):
    return F.cross_entropy(model(X), Y)


@pytest.mark.parametrize("size", [0.01, 0.2])
def test_perturbed_weights_move_by_their_share_along_the_gradient(size):
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss = loss_of(model)
    gradients = dict(
        zip(
            dict(model.named_parameters()),
            torch.autograd.grad(loss, list(model.parameters())),
            strict=True,
        )
    )
    model.load_state_dict(before)
    with adversarial_weight_perturbation(model, size, lambda: loss_of(model)):
        for name, weight in model.named_parameters():
            moved = weight.detach() - before[name]
            if weight.ndim == 1:
                assert not moved.any()
                continue
            torch.testing.assert_close(moved.norm(), size * before[name].norm())
            cosine = F.cosine_similarity(moved.flatten(), gradients[name].flatten(), dim=0)
            assert cosine > 0.999
        assert loss_of(model) > loss
        for name, buffer in model.named_buffers():
            if name.endswith("num_batches_tracked"):
                assert buffer == before[name] + 1  # from the line above only
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None


def test_a_perturbation_of_size_zero_computes_nothing():
    with adversarial_weight_perturbation(network(), 0, lambda: pytest.fail("computed")):
        pass


def test_weights_are_restored_after_an_error():
    model = network()
    before = model[0].weight.detach().clone()
    with (
        pytest.raises(RuntimeError, match="inside"),
        adversarial_weight_perturbation(model, 0.1, lambda: loss_of(model)),
    ):
        raise RuntimeError("inside")
    assert torch.equal(model[0].weight, before)


class Recorded:
    """An objective that keeps the weights at which it was evaluated."""

    attack_loss = "ce"

    def __init__(self, objective):
        self.objective, self.weights = objective, []

    def __call__(self, model, views, y):
        self.weights.append([weight.detach().clone() for weight in model.parameters()])
        return self.objective(model, views, y)


def test_an_update_descends_the_gradient_at_the_perturbed_weights(tiny):
    plan = make_plan({"data": "tiny", "optimizer": "sgd", "lr": 0.1, "lr_schedule": "constant"})
    plan = attrs.evolve(
        plan,
        config=attrs.evolve(plan.config, weight_decay=0.0, awp=0.05),
        objective=Recorded(plan.objective),
    )
    trial = TrialUpdates(plan)
    trial.update()
    before, worse = plan.objective.weights
    for one, other, weight in zip(before, worse, trial.state.model.parameters(), strict=True):
        share = 0.05 if weight.ndim > 1 else 0.0
        torch.testing.assert_close((other - one).norm(), share * one.norm(), rtol=1e-3, atol=0)
        torch.testing.assert_close(weight.detach(), one - 0.1 * weight.grad)


@pytest.mark.parametrize("average", ["ema(decay=0.9)", "swa(start=0)"])
def test_the_average_is_saved_and_evaluated(tiny, tmp_path, average):
    trained = curricula.train(data="tiny", average=average, epochs=3, output=tmp_path / "run")
    last = curricula.load_model(trained.run, checkpoint="last")
    tensors = load_file(trained.run.path / LAST)
    names = [name for name, _ in last.named_parameters()]
    for name, weight in last.named_parameters():
        assert torch.equal(weight, tensors[f"average.module.{name}"])
    assert any(
        not torch.equal(tensors[f"model.{name}"], tensors[f"average.module.{name}"])
        for name in names
    )
    kept = curricula.load_model(trained.run, checkpoint="best")
    metrics = trained.run.lines(METRICS)
    assert metrics[-1]["best"] == all(
        torch.equal(a, b) for a, b in zip(kept.parameters(), last.parameters(), strict=True)
    )
    again = curricula.evaluate(trained.run)
    assert [result.correct for result in again] == [r.correct for r in trained.results]
    assert trained.run.config.average == average
