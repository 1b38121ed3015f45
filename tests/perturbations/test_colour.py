"""Colour equals torchvision, noise has its distribution, and the ascent reaches closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curricula.errors import UserError
from curricula.expressions.binding import bind
from curricula.perturbations.intensity.colour import (
    Brightness,
    Contrast,
    Hue,
    Saturation,
    worst_parameters,
)
from curricula.perturbations.intensity.noise import Cutout, GaussianNoise, UniformNoise
from curricula.victim.model_victim import ModelVictim

NO_VICTIM = ModelVictim(nn.Identity())
ADJUSTMENTS = {
    Brightness: (tv.adjust_brightness, lambda change: 1 + change),
    Contrast: (tv.adjust_contrast, lambda change: 1 + change),
    Saturation: (tv.adjust_saturation, lambda change: 1 + change),
    Hue: (tv.adjust_hue, lambda change: change),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def colours(n=16, channels=3, height=7, width=9):
    """Return random images, including greys, blacks, whites, pure colours and ties of channels."""
    x = torch.rand((n, channels, height, width), generator=seeded())
    x[0] = x[0, :1]
    x[1] = x[1].round()
    x[2, 0] = x[2, -1]
    x[3, -1] = 0
    return x


@pytest.mark.parametrize("kind", ADJUSTMENTS)
def test_the_change_equals_torchvisions_on_each_image(kind):
    adjust, factor = ADJUSTMENTS[kind]
    changes = torch.linspace(-0.5, 0.5, 16) if kind is Hue else torch.linspace(-1, 3, 16)
    x = colours()
    expected = [
        adjust(image, factor(float(change))) for image, change in zip(x, changes, strict=True)
    ]
    found = kind().apply(x, changes[:, None])
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


def test_the_contrast_of_one_channel_is_about_its_own_mean():
    x = colours(channels=1)
    changes = torch.linspace(-1, 3, 16)
    expected = [
        tv.adjust_contrast(image, 1 + float(change))
        for image, change in zip(x, changes, strict=True)
    ]
    found = Contrast().apply(x, changes[:, None])
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ADJUSTMENTS)
def test_a_change_of_0_returns_the_image_bit_for_bit(kind):
    x = colours()
    changes = torch.zeros(16, 1)
    changes[::2] = 0.25
    found = kind().apply(x, changes)
    assert torch.equal(found[1::2], x[1::2])
    assert not torch.equal(found[4], x[4])


@pytest.mark.parametrize("kind", ADJUSTMENTS)
@pytest.mark.parametrize("change", [-0.07, 0.0, 0.06])
def test_the_change_is_differentiable_in_image_and_parameter(kind, change):
    x = (0.2 + 0.6 * torch.rand((3, 3, 2, 2), generator=seeded(1))).double().requires_grad_()
    parameters = torch.full((3, 1), change, dtype=torch.float64, requires_grad=True)
    if change == 0 and kind is Hue:
        # At turn 0 the value jumps by rounding, so gradcheck fails: compare the slope alone.
        (slope,) = torch.autograd.grad(kind().apply(x, parameters)[:, 0].sum(), parameters)
        ends = [kind().apply(x, parameters + end)[:, 0] for end in (1e-6, -1e-6)]
        expected = ((ends[0] - ends[1]) / 2e-6).sum((1, 2))[:, None]
        torch.testing.assert_close(slope, expected, atol=1e-4, rtol=1e-4)
        return
    assert torch.autograd.gradcheck(kind().apply, (x, parameters), eps=1e-7, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(ADJUSTMENTS)),
    share=st.floats(0, 1),
    strengths=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5),
    points=st.integers(1, 6),
    wide=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_changes_lie_within_budget_times_strength(kind, share, strengths, points, wide):
    budget = share * (0.5 if kind is Hue else wide)
    perturbation = kind(budget=budget)
    lowest = -math.inf if kind is Hue else -1
    strength_N = torch.tensor(strengths)
    n = len(strengths)
    for strength in (strengths[0], strength_N):
        high = torch.as_tensor(strength).expand(n)[:, None] * budget + 1e-6
        drawn = perturbation.sample(n, strength, seeded())
        grid = perturbation.grid(strength, points)
        grid = grid if grid.ndim == 3 else grid[:, None].expand(-1, n, -1)
        for changes in (drawn, grid):
            assert (changes <= high).all()
            assert (changes >= (-high).clamp_min(lowest)).all()


def test_factors_are_uniform_and_never_negative():
    changes = Brightness(budget=3.0).sample(20_000, 0.5, seeded())[:, 0]
    # Uniform on [-1, 1.5]: mean 0.25, standard deviation 2.5 / sqrt(12).
    assert changes.min() >= -1
    assert changes.max() <= 1.5
    assert abs(float(changes.mean()) - 0.25) < 5 * 2.5 / math.sqrt(12 * 20_000)
    assert float(changes.std()) == pytest.approx(2.5 / math.sqrt(12), rel=0.03)


class WeightedSum(nn.Module):
    """A model of two logits, 0 and the weighted sum of the pixels. The loss of class 0 increases
    with the sum, that of class 1 decreases."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        return F.pad((x * self.weights).sum((1, 2, 3))[:, None], (1, 0))


def slopes(kind, x):
    """Return each pixel's derivative in the change where nothing is cut off, in closed form."""
    luma = (x * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    return {
        Brightness: x,
        Contrast: x - luma.mean((1, 2, 3), keepdim=True),
        Saturation: x - luma,
    }[kind]


@pytest.mark.parametrize("kind", [Brightness, Contrast, Saturation])
@pytest.mark.parametrize("strength", [0.5, torch.linspace(0, 1, 12)])
@pytest.mark.parametrize("steps", [1, 5])  # a single step is longer than the range
def test_the_ascent_finds_the_worst_factor_of_a_linear_model(kind, strength, steps):
    x = 0.3 + 0.3 * torch.rand((12, 3, 5, 6), generator=seeded(1))
    y = torch.arange(12) % 2
    weights = torch.randn((3, 5, 6), generator=seeded(2))
    rises = (slopes(kind, x) * weights).sum((1, 2, 3)) * (1 - 2 * y)
    expected = rises.sign() * 0.4 * strength
    found = kind(budget=0.4, ascent=steps)(
        x, y, strength=strength, victim=ModelVictim(WeightedSum(weights)), generator=seeded()
    )
    torch.testing.assert_close(found, kind().apply(x, expected[:, None]))


def test_the_ascent_of_hue_turns_orange_to_yellow_or_to_red():
    # From red to yellow, a sixth of a turn, green rises from 0 to 1 in a straight line.
    x = torch.tensor([1.0, 0.5, 0.0])[:, None, None].expand(6, 3, 3, 4)
    y = torch.arange(6) % 2  # the loss of class 0 increases with green, that of class 1 decreases
    weights = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    found = Hue(budget=0.08, ascent=5)(
        x, y, strength=1.0, victim=ModelVictim(WeightedSum(weights)), generator=seeded()
    )
    expected = 0.5 + 6 * 0.08 * (1 - 2 * y)
    torch.testing.assert_close(found[:, 1], expected[:, None, None].expand(6, 3, 4))


def test_the_ascent_returns_the_highest_loss_visited_not_the_last():
    """One pixel of value 0.5 times 1 + change; the loss is a tent about 0.55, a change of 0.1."""

    class Tent:
        def gradient(self, x, y, loss=None):
            off = x.flatten(1).sum(1) - 0.55
            return -off.sign()[:, None, None, None].expand(x.shape), -off.abs(), None

    x, y = torch.full((50, 1, 1, 1), 0.5), torch.zeros(50, dtype=torch.long)
    start = torch.linspace(-0.4, 0.4, 50)[:, None]
    high = torch.full((50, 1), 0.4)
    for steps in (1, 4, 40):
        found = worst_parameters(
            x, y, start, -high, high, apply=Brightness().apply, victim=Tent(), steps=steps
        )
        off = (found - 0.1).abs()
        assert (off <= (start - 0.1).abs() + 1e-6).all()
    # Two visits on either side of the top are one step apart: 2.5 / 40 of 0.4.
    assert off.max() <= 0.025 / 2 + 1e-6


@pytest.mark.parametrize("kind", ADJUSTMENTS)
def test_the_ascent_is_never_worse_than_its_random_start(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(280, 3))
    victim, x, y = ModelVictim(model), colours(32), torch.arange(32) % 3

    def loss(perturbation):
        changed = perturbation(x, y, strength=1.0, victim=victim, generator=seeded(4))
        return F.cross_entropy(victim.logits(changed), y, reduction="none")

    drawn, ascended = loss(kind()), loss(kind(ascent=4))
    assert (ascended >= drawn - 1e-6).all()
    assert (ascended > drawn + 1e-4).float().mean() > 0.5


def test_gaussian_noise_has_its_standard_deviation():
    x = torch.full((2, 1, 200, 200), 0.5)
    strength = torch.tensor([0.25, 1.0])
    noise = GaussianNoise(budget=0.08)(
        x, torch.zeros(2), strength=strength, victim=NO_VICTIM, generator=seeded()
    )
    spread = (noise - 0.5).std(dim=(1, 2, 3))
    torch.testing.assert_close(spread, strength * 0.08, atol=0, rtol=0.02)
    fourth = ((noise - 0.5) / (strength * 0.08)[:, None, None, None]).pow(4).mean((1, 2, 3))
    torch.testing.assert_close(
        fourth, torch.full((2,), 3.0), atol=0.2, rtol=0
    )  # normal, not uniform


def test_uniform_noise_fills_its_ball_evenly():
    x = torch.full((2, 1, 200, 200), 0.5)
    strength = torch.tensor([0.25, 1.0])
    noise = UniformNoise(budget=0.1)(
        x, torch.zeros(2), strength=strength, victim=NO_VICTIM, generator=seeded()
    )
    unit = (noise - 0.5) / (strength * 0.1)[:, None, None, None]
    assert 0.999 < unit.abs().max() <= 1 + 1e-4
    torch.testing.assert_close(unit.std((1, 2, 3)), torch.full((2,), 3**-0.5), atol=0, rtol=0.02)


def test_a_square_is_cut_about_its_centre():
    x = torch.rand((3, 2, 10, 20), generator=seeded()).clamp_min(0.1)
    holes = torch.tensor([[0.5, 0.5, 0.4], [0.0, 1.0, 0.4], [0.25, 0.125, 0.0]])
    # The last has side 0, about the middle of a pixel.
    expected = x.clone()
    expected[0, :, 3:7, 8:12] = 0.25
    expected[1, :, :2, 18:] = 0.25  # three quarters of it lie outside the image
    assert torch.equal(Cutout(fill=0.25).apply(x, holes), expected)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1, width=32), st.integers(4, 40), st.integers(4, 40))
def test_a_cut_is_no_larger_than_its_square(budget, strength, height, width):
    x = torch.ones(8, 1, height, width)
    cut = Cutout(budget=budget)(
        x, torch.zeros(8), strength=strength, victim=NO_VICTIM, generator=seeded()
    )
    side = budget * strength * min(height, width)
    assert ((cut == 0).any(3).sum(2) <= math.ceil(side + 1e-3)).all()
    assert ((cut == 0).any(2).sum(2) <= math.ceil(side + 1e-3)).all()


def test_the_grid_of_cutout_starts_with_no_square():
    grid = Cutout(budget=0.5).grid(0.5, 3)
    assert grid.shape == (10, 3)
    assert (grid[0] == 0).all()
    assert (grid[1:, 2] == 0.25).all()
    assert {tuple(row) for row in grid[1:, :2].tolist()} == {
        (row, column) for row in (0.0, 0.5, 1.0) for column in (0.0, 0.5, 1.0)
    }
    each = Cutout(budget=0.5).grid(torch.tensor([0.5, 1.0, 0.0]), 3)
    assert each.shape == (10, 3, 3)
    assert each[0, :, 2].tolist() == [0, 0, 0]
    assert each[1:, :, 2].tolist() == [[0.25, 0.5, 0]] * 9
    assert torch.equal(each[1:, :, :2], grid[1:, None, :2].expand(9, 3, 2))
    assert Cutout(budget=0.5).grid(1.0, 1).tolist() == [[0, 0, 0], [0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hue:0.6", "budget must be at most 0.5"),
        ("brightness:-1", "budget must be 0 or more"),
        ("contrast(0.4, ascent=-1)", "ascent must be 0 or more"),
        ("saturation(0.4, ascent=2.5)", "ascent must be a whole number"),
        ("cutout(0.5, fill=2)", "fill must be at most 1"),
        ("uniform", "no standard budget in linf"),
    ],
)
def test_an_argument_out_of_range_is_an_error(text, message):
    with pytest.raises(UserError, match=message):
        bind(text)


def test_a_training_default_for_attack_steps_does_not_reach_the_ascent():
    (leaf,) = bind("brightness", defaults={"steps": "10"}).leaves.values()
    assert leaf.perturbation == Brightness(budget=0.4, ascent=0)
