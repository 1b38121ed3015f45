"""Adversarial weight perturbation moves the weights along the gradient, and back."""

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula.training.awp import adversarial_weight_perturbation
from curricula.training.compile_choice import TrialUpdates
from curricula.training.plan import make_plan


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


X = torch.rand((6, 1, 4, 4), generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1, 0, 2])


def loss_of(model):
    return F.cross_entropy(model(X), Y)


def gradients_of(model):
    return lambda weights: torch.autograd.grad(loss_of(model), weights, materialize_grads=True)


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
    with adversarial_weight_perturbation(model, size, gradients_of(model)):
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
    with adversarial_weight_perturbation(network(), 0, lambda weights: pytest.fail("computed")):
        pass


def test_weights_are_restored_after_an_error():
    model = network()
    before = model[0].weight.detach().clone()
    with (
        pytest.raises(RuntimeError, match="inside"),
        adversarial_weight_perturbation(model, 0.1, gradients_of(model)),
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
    before, perturbed = plan.objective.weights
    for one, other, weight in zip(before, perturbed, trial.state.model.parameters(), strict=True):
        share = 0.05 if weight.ndim > 1 else 0.0
        torch.testing.assert_close((other - one).norm(), share * one.norm(), rtol=1e-3, atol=0)
        torch.testing.assert_close(weight.detach(), one - 0.1 * weight.grad)
