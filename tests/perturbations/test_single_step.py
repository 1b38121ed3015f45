"""rfgsm, nfgsm and mim equal closed forms on a linear model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curricula.curriculum import Curriculum, Threat
from curricula.errors import UserError
from curricula.interfaces import NormBound
from curricula.perturbations.attacks.mim import MIM
from curricula.perturbations.attacks.single_step import FGSM, NoisyFGSM, RandomFGSM
from curricula.victim.model_victim import ModelVictim

X = 0.3 + 0.4 * torch.rand((200, 1, 4, 4), generator=torch.Generator().manual_seed(1))
Y = torch.arange(200) % 2


@pytest.fixture
def linear():
    """A model of two classes with logits (w.x, -w.x), and its gradient's sign, a constant."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        layer.weight[1] = -layer.weight[0]
    sign = torch.where(Y == 0, -1.0, 1.0)[:, None] * layer.weight[0].detach().sign()
    return ModelVictim(nn.Sequential(nn.Flatten(), layer)), sign.reshape(-1, 1, 4, 4)


def test_rfgsm_ends_at_the_bound_or_a_step_from_its_uniform_start(linear, generator):
    """From u uniform in [-eps, eps], a step of 1.25 eps ends at min(u + 1.25 eps, eps): at the
    bound with probability 5/8, and below it uniform in [eps / 4, eps]."""
    victim, sign = linear
    found = RandomFGSM(budget=0.1)(X, Y, strength=1.0, victim=victim, generator=generator)
    along = ((found - X) * sign / 0.1).flatten()
    assert along.min() >= 0.25 - 1e-4
    assert along.max() <= 1 + 1e-5
    at_bound = along > 1 - 1e-5
    assert float(at_bound.float().mean()) == pytest.approx(0.625, abs=0.03)
    assert float(along[~at_bound].mean()) == pytest.approx(0.625, abs=0.02)


def test_rfgsm_scales_with_the_strength_of_each_image(linear, generator):
    victim, sign = linear
    strength = torch.linspace(0, 1, 200)
    attack = RandomFGSM(budget=0.1, rel_step=2.0)  # ends at the bound from any start
    found = attack(X, Y, strength=strength, victim=victim, generator=generator)
    torch.testing.assert_close(found, X + 0.1 * strength.reshape(-1, 1, 1, 1) * sign)


def test_rfgsm_starts_half_the_radius_up_or_down(linear, generator):
    """A step of the radius from there ends at the radius, or half-way."""
    victim, sign = linear
    attack = RandomFGSM(budget=0.1, rel_step=1.0, bernoulli=0.5)
    found = attack(X, Y, strength=1.0, victim=victim, generator=generator)
    half, whole = ((found - X - share * sign).abs() < 1e-6 for share in (0.05, 0.1))
    assert (half | whole).all()
    assert float(half.float().mean()) == pytest.approx(0.5, abs=0.03)


def test_nfgsm_adds_noise_of_twice_the_budget_and_a_step_of_the_budget(linear, generator):
    victim, sign = linear
    found = NoisyFGSM(budget=0.1)(X, Y, strength=1.0, victim=victim, generator=generator)
    along = ((found - X) * sign / 0.1).flatten()  # uniform in [-2, 2], plus 1
    assert -1 - 1e-5 <= along.min() < -0.95
    assert 2.95 < along.max() <= 3 + 1e-5
    assert float(along.mean()) == pytest.approx(1, abs=0.08)
    assert float(along.var()) == pytest.approx(4 / 3, abs=0.08)


def test_nfgsm_takes_the_gradient_at_the_noisy_image(generator):
    """The loss is a bowl about the image: flat there, and increasing away from it."""
    queried = []

    class Bowl:
        def gradient(self, x, y, loss=None):
            queried.append(x)
            return x - X, torch.zeros(len(x)), torch.zeros(len(x), 2)

    found = NoisyFGSM(budget=0.1)(X, Y, strength=1.0, victim=Bowl(), generator=generator)
    (noisy,) = queried
    assert (noisy != X).float().mean() > 0.99
    torch.testing.assert_close(found, noisy + 0.1 * (noisy - X).sign())


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 2), st.floats(0.01, 3), st.floats(0.01, 3), st.integers(0, 2**30))
def test_nfgsm_keeps_its_declared_norm_bound(budget, noise, rel_step, seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    attack = NoisyFGSM(budget=budget, noise=noise, rel_step=rel_step)
    assert attack.norm_bound == NormBound(norm="linf", radius=(noise + rel_step) * budget)
    x, y = torch.rand((6, 1, 4, 4), generator=generator), torch.arange(6) % 3
    strength = torch.rand(6, generator=generator)
    found = attack(x, y, strength=strength, victim=victim, generator=generator)
    length = (found - x).abs().amax(dim=(1, 2, 3)).double()
    assert (length <= strength.double() * attack.norm_bound.radius + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_nfgsm_is_for_training_only():
    Curriculum.parse("nfgsm:0.1")
    with pytest.raises(UserError, match="nfgsm is for training only"):
        Threat.parse("nfgsm:0.1")


def test_mim_reaches_the_corner_of_the_ball(linear, generator):
    victim, sign = linear
    run = {"strength": 1.0, "victim": victim, "generator": generator}
    torch.testing.assert_close(MIM(budget=0.2, steps=4)(X, Y, **run), X + 0.2 * sign)
    fifth = MIM(budget=0.2, steps=1, rel_step=0.2)(X, Y, **run)
    torch.testing.assert_close(fifth, X + 0.04 * sign)


class Scripted:
    """A victim that returns given gradients, one per step."""

    def __init__(self, gradients):
        self.gradients = iter(gradients)

    def gradient(self, x, y, loss=None):
        return next(self.gradients).expand_as(x), torch.zeros(len(x)), torch.zeros(len(x), 2)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e20])
def test_mim_sums_gradients_normalised_by_size(scale, generator):
    """They are (1, 0, 0), (-1, -1, -1) / 3 and (-9, 0, 1) / 10; the sum halves at each step."""
    steps = [torch.tensor(g) for g in ([1.0, 0, 0], [-1.0, -1, -1], [-9.0, 0, 1])]
    scripted = Scripted([steps[0] * scale, steps[1], steps[2] / scale])
    x = torch.full((2, 1, 1, 3), 0.5)
    attack = MIM(budget=0.3, steps=3, rel_step=0.1, decay=0.5)
    found = attack(x, torch.zeros(2, dtype=torch.long), strength=1.0, victim=scripted,
                   generator=generator)  # fmt: skip
    # Sums: (1, 0, 0); (1/6, -1/3, -1/3); (-49/60, -1/6, -1/15). Steps of 0.03 along the signs.
    expected = torch.tensor([0.53, 0.44, 0.44])
    torch.testing.assert_close(found, expected.expand_as(x))


def test_mim_on_a_constant_model_returns_the_image(generator):
    scripted = Scripted([torch.zeros(3)] * 10)
    x = torch.full((2, 1, 1, 3), 0.5)
    found = MIM(budget=0.3)(x, torch.zeros(2, dtype=torch.long), strength=1.0, victim=scripted,
                            generator=generator)  # fmt: skip
    assert torch.equal(found, x)


@pytest.mark.parametrize(
    ("attack", "arguments", "message"),
    [
        (FGSM, {"budget": -1.0}, "'budget' must be >= 0"),
        (RandomFGSM, {"budget": 0.1, "rel_step": 0.0}, "'rel_step' must be > 0"),
        (RandomFGSM, {"budget": 0.1, "bernoulli": 0.0}, "'bernoulli' must be > 0"),
        (RandomFGSM, {"budget": 0.1, "bernoulli": 1.5}, "'bernoulli' must be <= 1"),
        (NoisyFGSM, {"budget": 0.1, "noise": 0.0}, "'noise' must be > 0"),
        (NoisyFGSM, {"budget": 1e7}, "'budget' must be <= 1000000.0"),
        (MIM, {"budget": 0.1, "steps": 0}, "'steps' must be >= 1"),
        (MIM, {"budget": 0.1, "decay": -0.1}, "'decay' must be >= 0"),
    ],
)
def test_an_argument_out_of_range_is_an_error(attack, arguments, message):
    with pytest.raises(ValueError, match=message):
        attack(**arguments)
