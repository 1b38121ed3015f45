"""The audit finds planted gradient masking, each kind by the check that is about it, and lets an
honest model pass."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curricula import Curriculum, ModelVictim, Normalise, batches
from curricula.data.dataset import load_data
from curricula.evaluation.audit import (
    audit,
)

TINY = Path(__file__).parent / "fixtures" / "tiny.py"
N = 100

CHECKS = (
    "deterministic forward",
    "logits, not probabilities",
    "nonzero gradients",
    "iterative beats one step",
    "monotone in eps",
    "unbounded eps reaches 0",
    "more steps plateau",
    "restarts plateau",
    "gradient-free does not win",
)


class Network(nn.Module):
    """Two strided convolutions and a linear layer, with something after each layer but the last and
    after the whole."""

    def __init__(self, before=nn.Identity(), between=nn.Identity(), after=nn.Identity()):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 5, stride=3)
        self.second = nn.Conv2d(16, 32, 3, stride=2)
        self.last = nn.Linear(32 * 9, 10)
        self.normalise = Normalise()
        self.before, self.between, self.after = before, between, after

    def forward(self, x):
        x = self.between(self.first(self.normalise(self.before(x))).relu())
        x = self.between(self.second(x).relu())
        return self.after(self.last(x.flatten(1)))


class Noise(nn.Module):
    def forward(self, x):
        return (x + 0.2 * torch.randn_like(x)).clamp(0, 1)


class Rounded(nn.Module):
    def forward(self, x):
        return (2 * x).round() / 2


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, logits):
        return self.factor * logits


class Softmax(nn.Module):
    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, logits):
        return (logits / self.temperature).softmax(1)


class OfTheBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def trained(attack):
    """A network of the digits, trained plainly or against PGD in the ball of 0.1."""
    data = load_data("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Network()
    curriculum = Curriculum.parse(attack, ["constant"])
    victim, draws = ModelVictim(model), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    epochs = 12
    for epoch in range(epochs):
        strength = min(1.0, epoch / (epochs / 2))
        for _, batch in batches(data.train, 64, generator=draws):
            views = curriculum(
                data.images(batch.pixels),
                batch.labels,
                strengths=dict.fromkeys(curriculum.bound.leaves, strength),
                victim=victim,
                generator=draws,
            )
            loss = F.cross_entropy(model(views.perturbed), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), data


@pytest.fixture(scope="module")
def robust():
    return trained("pgd(0.1, steps=4)")


@pytest.fixture(scope="module")
def plain():
    return trained("clean")


def masked(model, **planted):
    """The same weights behind something that masks the gradient."""
    network = Network(**planted)
    network.load_state_dict(model.state_dict())
    return network.eval()


def failures(found):
    return {check.name for check in found.checks if not check.passed}


@pytest.mark.parametrize("seed", [0, 1])
def test_an_honest_robust_model_passes(robust, seed):
    model, data = robust
    found = audit(model, data, data.test[:N], seed=seed)
    assert not failures(found), found.checks
    assert found.passed
    assert tuple(check.name for check in found.checks) == CHECKS
    # And is robust: otherwise there was nothing to mask.
    accuracy = {attack.name: attack.accuracy for attack in found.attacks}
    assert accuracy["pgd-40"] > 0.5
    assert accuracy["clean"] > 0.9


def test_an_honest_plain_model_passes(plain):
    model, data = plain
    found = audit(model, data, data.test[:N])
    assert found.passed, found.checks
    assert {attack.name: attack.accuracy for attack in found.attacks}["pgd-40"] < 0.5


def test_random_input_noise_is_caught(plain):
    model, data = plain
    noisy = masked(model, before=Noise())
    before = torch.get_rng_state()
    found = audit(noisy, data, data.test[:N])
    assert "deterministic forward" in failures(found)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)  # whatever was drawn before
    assert audit(noisy, data, data.test[:20]) == audit(noisy, data, data.test[:20])


def test_a_look_at_the_batch_is_caught(plain):
    model, data = plain
    found = audit(masked(model, before=OfTheBatch()), data, data.test[:20])
    assert "deterministic forward" in failures(found)


def test_quantised_activations_are_caught(plain):
    model, data = plain
    found = audit(masked(model, between=Rounded()), data, data.test[:N])
    assert failures(found) >= {
        "nonzero gradients",
        "unbounded eps reaches 0",
        "gradient-free does not win",
    }
    assert "deterministic forward" not in failures(found)


def test_a_saturated_softmax_is_caught(plain):
    """Logits of such a size that cross-entropy is 0 in float32; DLR does not mind."""
    model, data = plain
    found = audit(masked(model, after=Scaled(1000.0)), data, data.test[:N])
    assert "nonzero gradients" in failures(found)
    (check,) = [check for check in found.checks if check.name == "nonzero gradients"]
    assert "0 on dlr" in check.finding
    assert "loss=dlr" in check.finding


@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_probabilities_are_caught(plain, temperature):
    model, data = plain
    found = audit(masked(model, after=Softmax(temperature)), data, data.test[:N])
    assert "logits, not probabilities" in failures(found)
    if temperature < 1:
        assert failures(found) >= {"nonzero gradients", "gradient-free does not win"}


def test_log_probabilities_are_logits(plain):
    model, data = plain
    found = audit(masked(model, after=nn.LogSoftmax(1)), data, data.test[:20])
    assert found.passed, found.checks
