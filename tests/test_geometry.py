"""Warps against torchvision and against a direct evaluation in float64."""

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st

from curricula.curriculum import Curriculum
from curricula.geometry import (
    compose,
    identity_theta,
    rotation_theta,
    translation_theta,
    warp,
)
from curricula.perturbations.spatial import Rotation, Translation
from curricula.victim import ModelVictim

NO_VICTIM = ModelVictim(torch.nn.Identity())  # spatial changes do not look at it


def smooth_images(n, channels, height, width):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((n, channels, 5, 6), generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def bilinear_zero(image_CHW, x, y):
    """Bilinear value at float64 coordinates, zero outside; written for clarity."""
    channels, height, width = image_CHW.shape
    value = np.zeros(channels)
    x0, y0 = math.floor(x), math.floor(y)
    for xi, wx in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
        for yi, wy in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
            if 0 <= xi < width and 0 <= yi < height:
                value += wx * wy * image_CHW[:, yi, xi]
    return value


@pytest.mark.parametrize("size", [(28, 28), (20, 31)])
def test_rotation_agrees_with_torchvision(size):
    x = smooth_images(6, 3, *size)
    degrees = torch.tensor([-170.0, -45, -10, 5, 30, 90])
    ours = warp(x, rotation_theta(degrees))
    theirs = torch.stack(
        [
            tv.rotate(image, float(angle), interpolation=tv.InterpolationMode.BILINEAR)
            for image, angle in zip(x, degrees, strict=True)
        ]
    )
    # The interior: where neither reads across the border (torchvision masks it otherwise).
    inside = warp(torch.ones_like(x), rotation_theta(degrees)) > 1 - 1e-5
    assert inside.float().mean() > 0.5
    assert (ours - theirs)[inside].abs().max() < 1e-4


def test_a_translation_by_whole_pixels_is_a_shift_of_the_array():
    x = torch.rand(2, 1, 7, 9)
    moved = warp(x, translation_theta(torch.tensor([[2.0, 0.0], [0.0, -3.0]])))
    torch.testing.assert_close(moved[0, :, :, 2:], x[0, :, :, :-2])
    assert (moved[0, :, :, :2] == 0).all()
    torch.testing.assert_close(moved[1, :, :-3], x[1, :, 3:])
    assert (moved[1, :, -3:] == 0).all()


def test_quarter_turns_are_exact_turns_of_the_array():
    x = torch.rand(3, 2, 8, 8)
    for quarters in (1, 2, 3):
        turned = warp(x, rotation_theta(torch.full((3,), 90.0 * quarters)))
        torch.testing.assert_close(turned, x.rot90(quarters, (2, 3)), atol=1e-5, rtol=0)


def test_fused_rot_trans_agrees_with_the_composed_map_in_float64():
    height, width = 15, 22
    x = torch.rand(4, 2, height, width)
    degrees = torch.tensor([20.0, -75.0, 140.0, 3.0])
    pixels = torch.tensor([[1.5, -2.25], [0.0, 3.0], [-4.5, 0.5], [0.25, 0.25]])
    fused = warp(x, compose(rotation_theta(degrees), translation_theta(pixels)))
    expected = np.zeros(fused.shape)
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    for n in range(4):
        angle = math.radians(float(degrees[n]))
        dx, dy = map(float, pixels[n])
        for row in range(height):
            for column in range(width):
                # The output pixel, moved back; then turned back, which is clockwise as seen.
                px, py = column - middle_x - dx, row - middle_y - dy
                qx = math.cos(angle) * px - math.sin(angle) * py
                qy = math.sin(angle) * px + math.cos(angle) * py
                expected[n, :, row, column] = bilinear_zero(
                    x[n].double().numpy(), qx + middle_x, qy + middle_y
                )
    assert np.abs(fused.numpy() - expected).max() < 1e-4


def test_a_chain_of_rot_and_trans_is_one_interpolation_in_the_order_written(generator):
    x, y = torch.rand(5, 1, 12, 12), torch.zeros(5, dtype=torch.long)
    curriculum = Curriculum.parse("rot:40+trans:2", ["constant"])
    strengths = {"rot": 1.0, "trans": 1.0}
    views = curriculum(x, y, strengths=strengths, victim=NO_VICTIM, generator=generator)
    again = torch.Generator().manual_seed(0)
    rot, trans = Rotation(budget=40.0), Translation(budget=2.0)
    degrees, pixels = rot.sample(5, 1.0, again), trans.sample(5, 1.0, again)
    theta = compose(rotation_theta(degrees[:, 0]), translation_theta(pixels))
    torch.testing.assert_close(views.natural, warp(x, theta))
    twice = trans.apply(rot.apply(x, degrees), pixels)
    assert not torch.allclose(views.natural, twice, atol=1e-3)  # two interpolations blur


def test_links_that_interpolate_differently_are_not_fused(generator):
    x, y = torch.rand(3, 1, 9, 9), torch.zeros(3, dtype=torch.long)
    curriculum = Curriculum.parse("rot:40+trans(2, interpolation=nearest)", ["constant"])
    views = curriculum(
        x, y, strengths={"rot": 1.0, "trans": 1.0}, victim=NO_VICTIM, generator=generator
    )
    again = torch.Generator().manual_seed(0)
    rot = Rotation(budget=40.0)
    trans = Translation(budget=2.0, interpolation="nearest")
    expected = rot.apply(x, rot.sample(3, 1.0, again))
    expected = trans.apply(expected, trans.sample(3, 1.0, again))
    assert torch.equal(views.natural, expected)


def test_the_identity_is_bit_for_bit():
    x = torch.rand(3, 3, 11, 17)
    assert torch.equal(warp(x, identity_theta(3, x.device)), x)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-180, 180),
    st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
    st.sampled_from(["bilinear", "nearest"]),
    st.sampled_from(["zeros", "border", "reflection"]),
)
def test_a_warp_stays_between_0_and_1(degrees, pixels, interpolation, padding):
    theta = compose(
        rotation_theta(torch.tensor([degrees])), translation_theta(torch.tensor([pixels]))
    )
    out = warp(torch.ones(1, 1, 6, 8), theta, interpolation=interpolation, padding=padding)
    assert out.min() >= 0
    assert out.max() <= 1


def test_padding_shows_what_it_says():
    x = torch.ones(1, 1, 4, 4)
    theta = translation_theta(torch.tensor([[3.0, 0.0]]))
    assert warp(x, theta)[0, 0, 0, 0] == 0
    assert warp(x, theta, padding="border")[0, 0, 0, 0] == 1


def test_samples_are_uniform_within_the_budget_and_scaled_per_image(generator):
    degrees = Rotation(budget=30.0).sample(20_000, 0.5, generator)[:, 0]
    assert degrees.abs().max() <= 15
    # Uniform on [-15, 15]: mean 0 and standard deviation 15 / sqrt(3), to five standard errors.
    assert abs(float(degrees.mean())) < 5 * 15 / math.sqrt(3 * 20_000)
    assert float(degrees.std()) == pytest.approx(15 / math.sqrt(3), rel=0.03)
    strength = torch.tensor([0.0, 0.1, 1.0])
    pixels = Translation(budget=3.0).sample(3, strength, generator)
    assert (pixels.abs() <= 3 * strength[:, None]).all()


def test_grids_are_regular_and_hold_the_identity():
    degrees = Rotation(budget=30.0).grid(1.0, 31)
    assert degrees.shape == (31, 1)
    torch.testing.assert_close(degrees[:, 0], torch.arange(-30.0, 31.0, 2.0))
    pixels = Translation(budget=3.0).grid(1.0, 5)
    assert pixels.shape == (25, 2)
    assert (pixels == 0).all(1).sum() == 1
