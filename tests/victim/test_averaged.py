"""Victims that average over the draws of a random network, against loops over single draws."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula.expressions.binding import bind
from curricula.losses import ATTACK_LOSSES, towards
from curricula.perturbations.attacks.apgd import APGD
from curricula.perturbations.attacks.pgd import PGD
from curricula.victim import averaged as module
from curricula.victim.averaged import averaged
from curricula.victim.model_victim import ModelVictim

DRAWS, EPS = 5, 0.1


class Jittered(nn.Module):
    """A network that adds uniform noise: to each image, or the same to all images of a batch."""

    def __init__(self, noise=0.5, by_image=True):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
        self.noise, self.by_image = noise, by_image

    def forward(self, x):
        shape = x.shape if self.by_image else (1, *x.shape[1:])
        return self.net(x + self.noise * (torch.rand(shape) - 0.5))


X = torch.rand((6, 1, 4, 4), generator=torch.Generator().manual_seed(1))
Y = torch.arange(6) % 3


def victim_of(network):
    victim = ModelVictim(network)
    victim.gradient(X, Y)  # the first pass tries cheaper forms, which draws too
    return victim


def brute_force(network, x):
    """Return the mean gradient, loss and probabilities of the draws that follow, one by one."""
    found = []
    for _ in range(DRAWS):
        free = x.clone().requires_grad_()
        logits = network(free)
        loss_N = F.cross_entropy(logits, Y, reduction="none")
        (gradient,) = torch.autograd.grad(loss_N.sum(), free)
        found.append((gradient, loss_N.detach(), logits.detach().softmax(1)))
    return [torch.stack(each).mean(0) for each in zip(*found, strict=True)]


def after_probe(victim, by_image):
    """Return an averaged victim that knows how its network draws."""
    each = averaged(victim, DRAWS)
    each.logits(X)
    assert each.found == [by_image]
    return each


@pytest.mark.parametrize("at_once", [2**18, 2 * 6 * 16, 1])
def test_gradient_loss_and_logits_are_those_of_a_loop_at_equal_seeds(monkeypatch, at_once):
    """All draws in one batch, two in each, and one at a time."""
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", at_once)
    network = Jittered()
    each = averaged(victim_of(network), DRAWS)
    each.logits(X)
    torch.manual_seed(7)
    expected = brute_force(network, X)
    torch.manual_seed(7)
    gradient, loss, logits = each.gradient(X, Y)
    torch.manual_seed(7)
    again = each.logits(X)
    for one, other in zip(
        (gradient, loss, logits.exp(), again.exp()), (*expected, expected[2]), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_network_that_draws_once_for_a_batch_draws_again_for_each_average():
    """Its copies of an image in one batch would all have the same draw."""
    network = Jittered(by_image=False)
    each = after_probe(victim_of(network), by_image=False)
    torch.manual_seed(7)
    expected = brute_force(network, X)
    torch.manual_seed(7)
    gradient, loss, _ = each.gradient(X, Y)
    torch.testing.assert_close(gradient, expected[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(loss, expected[1])


class Both(Jittered):
    """Add noise to each image, and some to all images of a batch."""

    def forward(self, x):
        noise = torch.rand(x.shape) - 0.5 + torch.rand((1, *x.shape[1:])) - 0.5
        return self.net(x + self.noise * noise)


def test_a_network_that_draws_by_image_and_by_batch_draws_again_for_each_average():
    """Its copies of an image differ, and yet they share a draw."""
    torch.manual_seed(3)
    after_probe(victim_of(Both()), by_image=False)


def test_the_averaged_logits_have_the_gradient_of_the_mean_probability():
    each = after_probe(victim_of(Jittered()), by_image=True)
    free = X.clone().double().float().requires_grad_()
    torch.manual_seed(3)
    (found,) = torch.autograd.grad(each.logits(free)[:, 0].sum(), free)
    step = torch.zeros_like(X)
    step[:, 0, 0, 0] = 1e-2
    values = []
    for x in (X + step, X - step):
        torch.manual_seed(3)
        values.append(each.logits(x)[:, 0])
    slope = (values[0] - values[1]) / 2e-2
    torch.testing.assert_close(found[:, 0, 0, 0], slope, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("loss", [towards((Y + 1) % 3), ATTACK_LOSSES["kl"]])
@pytest.mark.parametrize("at_once", [2**18, 1])
def test_losses_that_hold_values_of_each_image_see_one_draw_at_a_time(monkeypatch, loss, at_once):
    """Target classes and reference logits, in one batch of all draws as in a loop."""
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", at_once)
    network = Jittered()
    victim = victim_of(network)
    reference = network(X).detach()
    each = averaged(victim._with(lambda: reference), DRAWS)
    each.logits(X)
    torch.manual_seed(7)
    found = each.gradient(X, Y, loss)
    torch.manual_seed(7)
    expected = []
    for _ in range(DRAWS):
        free = X.clone().requires_grad_()
        loss_N = loss(network(free), Y, lambda: reference)
        expected.append((torch.autograd.grad(loss_N.sum(), free)[0], loss_N.detach()))
    for one, other in zip(found, zip(*expected, strict=True), strict=False):
        torch.testing.assert_close(one, torch.stack(other).mean(0), atol=1e-6, rtol=1e-5)


def test_one_draw_is_the_victim_itself_and_a_network_without_draws_is_unchanged():
    victim = victim_of(Jittered(noise=0))
    assert averaged(victim, 1) is victim
    each = averaged(victim, DRAWS)
    for one, other in zip(each.gradient(X, Y), victim.gradient(X, Y), strict=True):
        if one.shape == (6, 3):
            one, other = one.exp(), other.softmax(1)
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(budget=EPS, steps=4, random_start=False, eot=DRAWS),
        PGD(budget=EPS, steps=4, random_start=False),
    ],
)
def test_pgd_follows_the_loop(attack):
    """Per image, against projected gradient steps on brute-force averages at equal seeds."""
    network, victim = Jittered(), victim_of(Jittered())
    torch.manual_seed(5)
    found = attack(X, Y, strength=1.0, victim=victim, generator=torch.Generator())
    torch.manual_seed(5)
    current = X
    for _ in range(4):
        draws = DRAWS if attack.eot else 1
        gradients = []
        for _ in range(draws):
            free = current.clone().requires_grad_()
            loss = F.cross_entropy(network(free), Y, reduction="sum")
            gradients.append(torch.autograd.grad(loss, free)[0])
        current = current + 2.5 / 4 * EPS * torch.stack(gradients).mean(0).sign()
        current = current.clamp(X - EPS, X + EPS).clamp(0, 1)
    torch.testing.assert_close(found, current)


@pytest.mark.parametrize("name", ["pgd", "apgd", "mim", "fgsm", "rfgsm", "nfgsm"])
def test_every_gradient_attack_averages_and_counts_its_passes(name):
    one, many = bind(f"{name}:0.1"), bind(f"{name}(0.1, eot=7)")
    assert many.max_passes == 7 * one.max_passes
    assert "eot" not in str(one)
    assert "eot=7" in str(many)


def test_restarts_are_ranked_by_averages():
    attack = APGD(budget=EPS, steps=3, restarts=2, eot=3)
    x = attack(X, Y, strength=1.0, victim=victim_of(Jittered()), generator=torch.Generator())
    assert (x - X).abs().max() <= EPS + 1e-6
    assert attack.passes == 3 * APGD(budget=EPS, steps=3, restarts=2).passes
