"""Whole-pixel moves equal array slices, perspective moves corners, elastic equals scipy."""

import itertools
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curricula.curriculum import Curriculum
from curricula.errors import UserError
from curricula.expressions.binding import bind
from curricula.perturbations.geometric.affine import Rotation, Scale, Shear, Translation
from curricula.perturbations.geometric.warps import Elastic, Perspective, displacement
from curricula.perturbations.geometric.whole_pixels import Crop, Flip, Roll
from curricula.victim.model_victim import ModelVictim

NO_VICTIM = ModelVictim(nn.Identity())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def run(text, x, *, strength=1.0, seed=0):
    curriculum = Curriculum.parse(text)
    strengths = dict.fromkeys(curriculum.tree.leaves, strength)
    y = torch.zeros(len(x), dtype=torch.long)
    return curriculum(
        x, y, strengths=strengths, victim=NO_VICTIM, generator=seeded(seed)
    ).transformed


def test_flips_are_exact_and_have_the_declared_probability():
    x = torch.rand((6000, 1, 2, 5), generator=seeded())
    strength = torch.tensor([0.0, 0.5, 1.0]).repeat(2000)
    for direction, axis in (("horizontal", 3), ("vertical", 2)):
        found = run(f"flip(0.4, direction={direction})", x, strength=strength)
        mirrored = (found == x.flip(axis)).flatten(1).all(1)
        assert torch.equal(found[~mirrored], x[~mirrored])
        for value in (0.0, 0.5, 1.0):
            # Binomial, to five standard deviations.
            chance, share = 0.4 * value, float(mirrored[strength == value].float().mean())
            assert abs(share - chance) <= 5 * math.sqrt(chance * (1 - chance) / 2000)


def test_the_grid_of_a_flip_is_flipped_and_unflipped_if_the_probability_is_above_0():
    assert Flip().grid(1.0, 31).tolist() == [[0], [1]]
    assert Flip().grid(0.0, 3).tolist() == [[0], [0]]
    assert Flip(budget=0.0).grid(1.0, 3).tolist() == [[0], [0]]
    assert Flip().grid(torch.tensor([0.0, 0.1]), 1)[:, :, 0].tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_a_crop_is_a_window_of_the_padded_image(padding):
    x = torch.rand((3, 3, 6, 9), generator=seeded())
    mode = {"zeros": "constant", "border": "edge", "reflection": "symmetric"}[padding]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), mode=mode)
    crop = Crop(budget=4, padding=padding)
    windows = {
        padded[:, :, top : top + 6, left : left + 9].tobytes()
        for top in range(9)
        for left in range(9)
    }
    found = [crop.apply(x, row.expand(3, 2)) for row in crop.grid(1.0, 9)]
    assert {image.numpy().tobytes() for image in found} == windows


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_a_crop_is_the_translation_by_whole_pixels(padding):
    x = torch.rand((20, 2, 6, 9), generator=seeded())
    shifts = Crop(budget=5).sample(20, 1.0, seeded())
    torch.testing.assert_close(
        Crop(padding=padding).apply(x, shifts),
        Translation(budget=5.0, padding=padding).apply(x, shifts),
        atol=1e-5,
        rtol=0,
    )


def test_crop_and_flip_are_the_standard_augmentation():
    """In He et al. 2016 the result is a random window of the image padded by four zeros, or of its
    mirror image; all 9 x 9 x 2 results are equally likely."""
    # All results of a random image differ, so each can be found among the slices.
    x = torch.rand((1, 1, 5, 5), generator=seeded())
    outcomes = {}
    for mirror in (x, x.flip(3)):
        padded = np.pad(mirror.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
        for top in range(9):
            for left in range(9):
                outcomes[padded[:, :, top : top + 5, left : left + 5].tobytes()] = len(outcomes)
    assert len(outcomes) == 162
    n = 16_200
    found = run("crop:4+flip:0.5", x.expand(n, 1, 5, 5))
    counts = np.bincount([outcomes[image.numpy().tobytes()] for image in found], minlength=162)
    # Chi-squared with 161 degrees of freedom: mean 161, standard deviation sqrt(322).
    assert ((counts - 100) ** 2 / 100).sum() < 161 + 5 * math.sqrt(322)


def test_a_roll_is_that_of_torch():
    x = torch.rand((9, 2, 5, 7), generator=seeded())
    shifts = Roll(budget=6).sample(9, 1.0, seeded())
    expected = [
        image.roll((int(down), int(right)), (1, 2))
        for image, (right, down) in zip(x, shifts, strict=True)
    ]
    assert torch.equal(Roll(budget=6).apply(x, shifts), torch.stack(expected))


def test_whole_shifts_are_uniform_within_budget_times_strength():
    strength = torch.tensor([0.0, 0.3, 0.5, 1.0]).repeat(4000)
    shifts = Crop(budget=4).sample(16_000, strength, seeded())
    for value, largest in ((0.0, 0), (0.3, 1), (0.5, 2), (1.0, 4)):
        drawn = shifts[strength == value]
        values, counts = drawn.unique(return_counts=True)
        assert values.tolist() == list(range(-largest, largest + 1))
        expected = 8000 / len(values)
        assert ((counts - expected).abs() <= 5 * math.sqrt(expected)).all()


def test_the_grid_of_whole_shifts_has_no_more_points_than_whole_numbers():
    assert Roll(budget=2).grid(1.0, 31).tolist() == [
        [right, down] for right in range(-2, 3) for down in range(-2, 3)
    ]
    assert Roll(budget=4).grid(0.5, 3)[:, 1].unique().tolist() == [-2, 0, 2]
    mixed = Roll(budget=2).grid(torch.tensor([0.0, 0.5, 1.0]), 31)
    assert mixed.shape == (25, 3, 2)
    assert [len(mixed[:, n].unique(dim=0)) for n in range(3)] == [1, 9, 25]


def test_the_size_of_a_grid_counts_distinct_points():
    """A crop of one pixel has 9 points and a flip has 2, however many are requested."""
    bind("grid(crop:1, crop=200)")  # 9
    bind("grid(crop:1+flip+rot:9, crop=100, flip=100, rot=500)")  # 9 x 2 x 500 = 9,000
    with pytest.raises(UserError, match="a grid of 10,800 points"):
        bind("grid(crop:1+flip+rot:9, crop=100, flip=100, rot=600)")


@pytest.mark.parametrize(
    "made", [Rotation(budget=30), Translation(budget=3), Scale(budget=0.2), Shear(budget=15)]
)
def test_a_grid_of_one_point_is_the_identity(made):
    (point,) = made.grid(1.0, 1)
    assert (point == 0).all()
    x = torch.rand((1, 2, 5, 7), generator=seeded())
    torch.testing.assert_close(made.apply(x, point[None]), x)


def test_the_grid_of_a_perspective_moves_each_corner_along_its_diagonal():
    grid = Perspective(budget=0.5).grid(torch.tensor([1.0, 0.5]), 2)
    for image, largest in enumerate((0.25, 0.125)):
        expected = [
            [share for share in corners for _ in ("x", "y")]
            for corners in itertools.product((0.0, largest), repeat=4)
        ]
        assert grid[:, image].tolist() == expected
    assert Perspective(budget=0.5).grid(0.5, 2).tolist() == expected
    assert Perspective(budget=0.5).grid(1.0, 1).tolist() == [[0.125] * 8]


@settings(max_examples=60, deadline=None)
@given(
    made=st.one_of(
        st.builds(Crop, budget=st.integers(0, 30)),
        st.builds(Roll, budget=st.integers(0, 10_000)),
        st.builds(Perspective, budget=st.floats(0, 0.6)),
    ),
    strengths=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5),
    points=st.integers(1, 4),
)
def test_parameters_lie_within_budget_times_strength(made, strengths, points):
    n, strength_N = len(strengths), torch.tensor(strengths)
    slanted = isinstance(made, Perspective)
    for strength in (strengths[0], strength_N):
        largest = torch.as_tensor(strength).expand(n)[:, None] * made.budget * (1 + 1e-6)
        largest = largest / 2 if slanted else largest
        drawn = made.sample(n, strength, seeded())
        grid = made.grid(strength, points)
        grid = grid if grid.ndim == 3 else grid[:, None].expand(-1, n, -1)
        assert len(grid) <= points ** (4 if slanted else 2)
        for parameters in (drawn, grid):
            assert (parameters.abs() <= largest).all()
            assert (parameters >= 0).all() or not slanted
            assert (parameters % 1 == 0).all() or slanted


def test_a_corner_moves_inwards_by_its_own_share():
    # A white image shows the quadrilateral itself.
    x = torch.ones(4, 1, 40, 60)
    inward = torch.zeros(4, 8)
    for corner in range(4):
        inward[corner, 2 * corner], inward[corner, 2 * corner + 1] = 0.25, 0.2
    found = Perspective().apply(x, inward)[:, 0]
    # Outside the moved corner it is dark, inside it white; the other corners are white.
    places = {0: (8, 15), 1: (8, 44), 2: (31, 44), 3: (31, 15)}
    ends = {0: (0, 0), 1: (0, 59), 2: (39, 59), 3: (39, 0)}
    for corner, (row, column) in places.items():
        down, right = (1 if row < 20 else -1), (1 if column < 30 else -1)
        assert found[corner, row + 2 * down, column + 2 * right] == pytest.approx(1, abs=1e-5)
        assert found[corner, row - 2 * down, column - 2 * right] == 0
        for other, end in ends.items():
            assert (found[corner][end] == 0) == (other == corner)


def test_perspective_draws_each_corner_independently():
    inward = Perspective(budget=0.5).sample(20_000, 1.0, seeded())
    # Eight independent numbers, uniform on [0, 0.25].
    torch.testing.assert_close(inward.mean(0), torch.full((8,), 0.125), atol=0.003, rtol=0)
    assert (inward.T.corrcoef() - torch.eye(8)).abs().max() < 5 / math.sqrt(20_000)


@pytest.mark.parametrize("sigma", [0.7, 4.0, 30.0])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_elastic_equals_scipys_filter_and_interpolation(sigma, padding):
    x = torch.rand((3, 2, 17, 12), generator=seeded(5))
    strength = torch.tensor([0.3, 1.0, 0.0])
    made = Elastic(budget=3.0, sigma=sigma, padding=padding)
    found = made(x, torch.zeros(3), strength=strength, victim=NO_VICTIM, generator=seeded())
    noise = torch.randn((3, 2, 17, 12), generator=seeded()).double().numpy()
    mode = {"zeros": "grid-constant", "border": "nearest", "reflection": "reflect"}[padding]
    for n in range(3):
        field = np.stack(
            [
                scipy.ndimage.gaussian_filter(each, sigma, mode="constant", truncate=40 / sigma)
                for each in noise[n]
            ]
        )
        field *= 3.0 * float(strength[n]) / np.hypot(*field).max()
        places = np.mgrid[:17, :12] + field[::-1]
        for channel in range(2):
            expected = scipy.ndimage.map_coordinates(
                x[n, channel].double().numpy(), places, order=1, mode=mode
            )
            np.testing.assert_allclose(found[n, channel], expected, atol=2e-4)
    assert torch.equal(found[2], x[2])


@settings(max_examples=40, deadline=None)
@given(
    sigma=st.floats(0.1, 1e6),
    longest=st.lists(st.floats(0, 100, width=32), min_size=1, max_size=4),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_the_longest_displacement_is_the_budget(sigma, longest, height, width):
    noise = torch.randn((len(longest), 2, height, width), generator=seeded())
    ways = displacement(noise, sigma, torch.tensor(longest))
    assert ways.shape == (len(longest), height, width, 2)
    found = torch.linalg.vector_norm(ways, dim=-1).flatten(1).amax(1)
    torch.testing.assert_close(found, torch.tensor(longest), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop:2.5", "'budget' must be a whole number of pixels, not 2.5"),
        ("roll:-1", "budget must be 0 or more"),
        ("roll", "no standard budget in pixels"),
        ("flip:1.5", "budget must be at most 1"),
        ("flip(direction=diagonal)", "direction must be horizontal or vertical, not diagonal"),
        ("scale:1", "budget must be at most 0.99"),
        ("shear:90", "budget must be at most 80"),
        ("perspective:0.7", "budget must be at most 0.6"),
        ("elastic(3, sigma=0)", "sigma must be 0.1 or more"),
    ],
)
def test_an_argument_out_of_range_is_an_error(text, message):
    with pytest.raises(UserError, match=message):
        bind(text)


def test_expressions_state_all_defaults():
    assert str(bind("crop").expression) == "crop(4, padding=zeros)"
    assert str(bind("flip").expression) == "flip(0.5, direction=horizontal)"
    assert str(bind("roll", budgets={"pixels": "3"}).expression) == "roll:3"
    assert str(bind("scale+shear").expression) == (
        "scale(0.2, interpolation=bilinear, padding=zeros)"
        "+shear(15, interpolation=bilinear, padding=zeros)"
    )
