"""The victim: what it computes, and what it leaves unchanged."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula.errors import UserError
from curricula.training.optimizers import SGD, AdamW
from curricula.victim.model_victim import ModelVictim


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 36, 4),
    )


X = torch.rand((5, 2, 8, 8), generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3, 0])


def test_logits_are_those_of_the_model_in_eval_mode():
    model = network()
    victim = ModelVictim(model)
    found = victim.logits(X)
    assert model.training
    torch.testing.assert_close(found, model.eval()(X))


def test_the_gradient_is_that_of_the_summed_loss():
    model = network()
    gradient, loss_N, logits = ModelVictim(model).gradient(X, Y)
    x = X.clone().requires_grad_()
    expected = F.cross_entropy(model.eval()(x), Y, reduction="sum")
    expected.backward()
    torch.testing.assert_close(gradient, x.grad)
    torch.testing.assert_close(loss_N.sum(), expected.detach())
    assert not gradient.requires_grad
    assert not logits.requires_grad


def test_logits_are_differentiable_in_x_and_leave_no_weight_gradient():
    model = network()
    x = X.clone().requires_grad_()
    ModelVictim(model).logits(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_work_under_no_grad():
    with torch.no_grad():
        gradient, _, _ = ModelVictim(network()).gradient(X, Y)
    assert gradient.abs().sum() > 0


def test_the_victim_follows_every_change_of_weights():
    model = network()
    victim = ModelVictim(model)
    optimizer = AdamW(model.parameters(), lr=0.1)
    victim.logits(X)

    def step():
        model.train()
        F.cross_entropy(model(X), Y).backward()  # updates the batch-norm statistics too
        optimizer.step()

    def load():
        model.load_state_dict({k: v + 0.1 for k, v in model.state_dict().items()})

    def replace_parameter():
        model[5].weight = nn.Parameter(torch.rand(4, 6 * 36))

    def replace_buffer():
        model[1].running_mean = torch.ones(6)

    def to_double_and_back():
        model.double()
        model.float()

    for change in (step, step, load, replace_parameter, replace_buffer, to_double_and_back):
        before = victim.logits(X)
        change()
        after = victim.logits(X)
        torch.testing.assert_close(after, model.eval()(X))
        if change is not to_double_and_back:
            assert not torch.allclose(before, after), change.__name__


@pytest.mark.parametrize("optimizer", [SGD, AdamW])
def test_a_plain_equivalent_follows_a_fused_optimiser(optimizer):
    """A fused optimiser writes weights without new version counters."""

    class Equal(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(X[0].numel(), 3)

        def forward(self, x):
            return self.linear(x.flatten(1))

        def plain_equivalent(self):
            return nn.Sequential(nn.Flatten(), copy.deepcopy(self.linear))

    model = Equal()
    victim = ModelVictim(model)
    update = optimizer(model.parameters(), lr=0.1, fused=True)
    before = victim.logits(X)
    model(X).square().sum().backward()
    update.step()
    assert not torch.allclose(before, model(X))
    torch.testing.assert_close(victim.logits(X), model(X))


def test_a_plain_equivalent_is_attacked_and_requested_again_after_a_change():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.calls = 0

        def forward(self, x):
            raise AssertionError("the plain equivalent must be used")

        def plain_equivalent(self):
            self.calls += 1
            plain = nn.Linear(4, 3)
            plain.load_state_dict({k: 2 * v for k, v in self.linear.state_dict().items()})
            return nn.Sequential(nn.Flatten(), plain)

    model = Doubling()
    victim = ModelVictim(model)
    x = torch.rand(2, 1, 2, 2)
    for _ in range(3):
        torch.testing.assert_close(victim.logits(x), 2 * model.linear(x.flatten(1)))
    assert model.calls == 1
    with torch.no_grad():
        model.linear.weight.add_(1)
    torch.testing.assert_close(victim.logits(x), 2 * model.linear(x.flatten(1)))
    assert model.calls == 2
    model.linear.weight.data.mul_(-3)  # without a new version counter
    attacked = victim.with_reference(x)
    torch.testing.assert_close(attacked.logits(x), 2 * model.linear(x.flatten(1)))


def test_the_reference_is_the_logits_at_x_and_follows_a_subset():
    victim = ModelVictim(network())
    seen = []

    def spy(logits, y, reference):
        seen.append(reference())
        return F.cross_entropy(logits, y, reduction="none")

    with_reference = victim.with_reference(X)
    with_reference.gradient(X * 0.5, Y, spy)
    index = torch.tensor([3, 1])
    with_reference.subset(index).gradient(X[index] * 0.5, Y[index], spy)
    expected = victim.logits(X)
    torch.testing.assert_close(seen[0], expected)
    torch.testing.assert_close(seen[1], expected[index])
    assert not seen[0].requires_grad


def test_the_module_for_third_party_attacks_is_frozen_and_stays_in_eval_mode():
    model = network()
    module = ModelVictim(model).as_module()
    module.train()
    assert not any(child.training for child in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    # The model's, each once, without the two of the folded batch norm.
    assert len(list(module.parameters())) == len(list(model.parameters())) - 2
    assert all(child.training for child in model.modules())
    torch.testing.assert_close(module(X), model.eval()(X))


def test_bf16_rounds_only_the_arithmetic():
    model = network()
    exact, rounded = ModelVictim(model).logits(X), ModelVictim(model, precision="bf16").logits(X)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    # bf16 keeps 8 bits: a relative error of 2^-8 in each of a few layers.
    assert (exact - rounded).abs().max() < 4 * 2**-8 * exact.abs().max()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda logits, y, reference: F.cross_entropy(logits, y), "not one of shape \\(\\)"),
        (lambda logits, y, reference: logits, "not one of shape \\(N, K\\)"),
        (lambda logits, y, reference: None, "not None"),
        (lambda logits, y, reference: logits.detach().sum(1), "has no gradient in the logits"),
    ],
)
def test_a_function_whose_values_no_attack_can_ascend_is_refused(loss, message):
    n, classes = ModelVictim(network()).logits(X).shape
    message = message.replace("N, K", f"{n}, {classes}")
    with pytest.raises(UserError, match=f"the attack loss .*{message}"):
        ModelVictim(network(), loss=loss).gradient(X, torch.zeros(n, dtype=torch.long))


def test_an_unknown_loss_or_precision_is_refused():
    for wrong in ("hinge", None, 3):
        message = f"attack loss must be ce or kl or dlr, not {wrong!r}"
        with pytest.raises(UserError, match=message):
            ModelVictim(network(), loss=wrong)
    with pytest.raises(ValueError, match="precision must be float32 or bf16"):
        ModelVictim(network(), precision="fp8")
