"""Warps equal those of torchvision and a direct evaluation in float64."""

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
    quadrilateral_homography,
    rotation_theta,
    scale_theta,
    shear_theta,
    shift,
    translation_theta,
    warp,
    warp_displaced,
    warp_projective,
)
from curricula.perturbations.geometric.affine import Rotation, Scale, Shear, Translation
from curricula.victim.model_victim import ModelVictim

NO_VICTIM = ModelVictim(torch.nn.Identity())  # spatial changes do not use it


def smooth_images(n, channels, height, width):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((n, channels, 5, 6), generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def bilinear_zero(image_CHW, x, y):
    """Return the bilinear value at float64 coordinates, zero outside; written for clarity."""
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
    # Compare where neither reads across the border, which torchvision masks differently.
    inside = warp(torch.ones_like(x), rotation_theta(degrees)) > 1 - 1e-5
    assert inside.float().mean() > 0.5
    assert (ours - theirs)[inside].abs().max() < 1e-4


@pytest.mark.parametrize("size", [(28, 28), (20, 31)])
def test_scale_and_shear_agree_with_torchvision(size):
    x = smooth_images(5, 3, *size)
    factors = torch.tensor([0.5, 0.9, 1.0, 1.3, 2.5])
    degrees = torch.tensor([[20.0, 0.0], [0.0, 20.0], [-35.0, 10.0], [5.0, -50.0], [40.0, 40.0]])
    for theta, arguments in (
        (scale_theta(factors), [{"scale": float(f), "shear": [0.0, 0.0]} for f in factors]),
        (shear_theta(degrees), [{"scale": 1.0, "shear": pair.tolist()} for pair in degrees]),
    ):
        ours = warp(x, theta)
        theirs = torch.stack(
            [
                tv.affine(
                    image,
                    angle=0.0,
                    translate=[0, 0],
                    interpolation=tv.InterpolationMode.BILINEAR,
                    **each,
                )
                for image, each in zip(x, arguments, strict=True)
            ]
        )
        inside = warp(torch.ones_like(x), theta) > 1 - 1e-5
        assert inside.float().mean() > 0.4
        assert (ours - theirs)[inside].abs().max() < 1e-4


def test_a_shear_moves_what_is_below_to_the_left_and_what_is_right_up():
    x = torch.zeros(2, 1, 9, 9)
    x[:, 0, 4, 4], x[0, 0, 7, 4], x[1, 0, 4, 7] = 1, 0.5, 0.5
    found = warp(x, shear_theta(torch.tensor([[45.0, 0.0], [0.0, 45.0]])))
    assert found[0, 0, 7, 1] == pytest.approx(0.5, abs=1e-5)
    assert found[1, 0, 1, 7] == pytest.approx(0.5, abs=1e-5)
    assert found[:, 0, 4, 4].min() == pytest.approx(1, abs=1e-5)


def test_twice_the_size_is_every_pixel_four_times():
    x = torch.rand(1, 2, 8, 12)
    found = warp(x, scale_theta(torch.tensor([2.0])), interpolation="nearest")
    middle = x[:, :, 2:6, 3:9]
    assert torch.equal(found, middle.repeat_interleave(2, 2).repeat_interleave(2, 3))


HALF_A_PIXEL = {
    "affine": lambda x, right: warp(
        x, translation_theta(torch.tensor([[right, right]])), interpolation="nearest"
    ),
    "displacement": lambda x, right: warp_displaced(
        x, torch.full((1, *x.shape[2:], 2), -right), interpolation="nearest"
    ),
    "projective": lambda x, right: warp_projective(
        x,
        torch.tensor([[1, 0, -right / x.shape[3]], [0, 1, -right / x.shape[2]], [0, 0, 1]])[None],
        interpolation="nearest",
    ),
}


@pytest.mark.parametrize("how", HALF_A_PIXEL)
@pytest.mark.parametrize("right", [-2.5, -1.5, -0.5, 0.5, 1.5])
@pytest.mark.parametrize("size", [(28, 28), (7, 12), (33, 50)])
def test_nearest_moves_a_half_pixel_to_the_same_side_everywhere(how, right, size):
    x = torch.rand((1, 2, *size), generator=torch.Generator().manual_seed(0))
    found = HALF_A_PIXEL[how](x, right)
    assert torch.equal(found, shift(x, torch.tensor([[right - 0.5, right - 0.5]]).long(), "zeros"))


def test_half_the_size_is_every_second_pixel():
    x = torch.rand(1, 2, 8, 12)
    found = warp(x, scale_theta(torch.tensor([0.5])), interpolation="nearest")
    assert torch.equal(found[:, :, 2:6, 3:9], x[:, :, 1::2, 1::2])


@pytest.mark.parametrize("size", [(28, 28), (20, 31)])
def test_a_projective_warp_agrees_with_torchvision(size):
    height, width = size
    x = smooth_images(12, 3, *size)
    inward = torch.rand((12, 4, 2), generator=torch.Generator().manual_seed(1)) * 0.3
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    corners = square + inward * (1 - 2 * square)
    homography = quadrilateral_homography(corners)
    ours = warp_projective(x, homography)
    in_pixels = torch.tensor([width, height])
    theirs = torch.stack(
        [
            tv.perspective(image, (square * in_pixels).tolist(), (to * in_pixels).tolist())
            for image, to in zip(x, corners, strict=True)
        ]
    )
    inside = warp_projective(torch.ones_like(x), homography) > 1 - 1e-5
    assert inside.float().mean() > 0.3
    assert (ours - theirs)[inside].abs().max() < 1e-4


def test_a_homography_moves_the_corners_to_the_given_places():
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    inward = torch.rand((50, 4, 2), generator=torch.Generator().manual_seed(0)) * 0.3
    corners = square + inward * (1 - 2 * square)
    moved = torch.cat((corners, torch.ones(50, 4, 1)), -1) @ quadrilateral_homography(corners).mT
    torch.testing.assert_close(
        moved[..., :2] / moved[..., 2:], square.expand(50, 4, 2), atol=1e-5, rtol=0
    )
    assert torch.equal(quadrilateral_homography(square[None])[0], torch.eye(3))


def test_no_second_image_appears_beyond_the_horizon():
    x = torch.ones(1, 1, 60, 60)
    corners = torch.tensor([[[0.3, 0.3], [0.95, 0.0], [0.7, 0.7], [0.0, 0.95]]])
    found = warp_projective(x, quadrilateral_homography(corners))[0, 0]
    outline = corners[0]
    middle = (torch.arange(60) + 0.5) / 60
    place = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), -1)
    sides = outline.roll(-1, 0) - outline
    off = place[:, :, None] - outline
    within = (sides[:, 0] * off[..., 1] - sides[:, 1] * off[..., 0] > 0).all(-1)
    assert found[within].min() > 0.4  # the border's own pixels blend with what lies outside
    wide = torch.nn.functional.max_pool2d(within[None].float(), 5, 1, 2)[0] > 0
    assert (found[~wide] == 0).all()


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_a_displacement_by_whole_pixels_picks_those_pixels(padding):
    x = torch.rand(3, 2, 6, 9, generator=torch.Generator().manual_seed(0))
    ways = torch.randint(-3, 4, (3, 6, 9, 2), generator=torch.Generator().manual_seed(1))
    found = warp_displaced(x, ways.float(), padding=padding)
    mode = {"zeros": "constant", "border": "edge", "reflection": "symmetric"}[padding]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode=mode)
    rows, columns = np.mgrid[:6, :9]
    for n, way in enumerate(ways.numpy()):
        expected = padded[n, :, rows + 3 + way[..., 1], columns + 3 + way[..., 0]]
        np.testing.assert_allclose(found[n].permute(1, 2, 0), expected, atol=2e-6)


def test_a_displacement_of_0_returns_the_image_bit_for_bit():
    x = torch.rand(3, 3, 11, 17)
    ways = torch.zeros(3, 11, 17, 2)
    ways[1] = 0.3
    found = warp_displaced(x, ways)
    assert torch.equal(found[::2], x[::2])
    assert not torch.equal(found[1], x[1])


@pytest.mark.parametrize("edge", ["zeros", "border", "reflection", "wrap"])
def test_a_shift_is_a_window_of_the_padded_array(edge):
    x = torch.rand(7, 2, 5, 8)
    pixels = torch.tensor([[0, 0], [1, 0], [0, -2], [5, 5], [-4, 3], [-5, -5], [2, -1]])
    found = shift(x, pixels.float(), edge)
    mode = {"zeros": "constant", "border": "edge", "reflection": "symmetric", "wrap": "wrap"}[edge]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (5, 5), (5, 5)), mode=mode)
    for n, (right, down) in enumerate(pixels.tolist()):
        expected = padded[n, :, 5 - down : 10 - down, 5 - right : 13 - right]
        np.testing.assert_array_equal(found[n], expected)


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
                # Shift the output pixel back, then rotate it back, which is clockwise.
                px, py = column - middle_x - dx, row - middle_y - dy
                qx = math.cos(angle) * px - math.sin(angle) * py
                qy = math.sin(angle) * px + math.cos(angle) * py
                expected[n, :, row, column] = bilinear_zero(
                    x[n].double().numpy(), qx + middle_x, qy + middle_y
                )
    assert np.abs(fused.numpy() - expected).max() < 1e-4


def test_a_chain_of_all_affine_links_agrees_with_the_composed_map_in_float64(generator):
    height, width = 14, 19
    x, y = torch.rand((4, 2, height, width), generator=generator), torch.zeros(4, dtype=torch.long)
    curriculum = Curriculum.parse("scale:0.4+rot:60+shear:30+trans:3", ["constant"])
    strengths = dict.fromkeys(curriculum.tree.leaves, torch.tensor([1.0, 0.7, 0.2, 0.0]))
    again = torch.Generator()
    again.set_state(generator.get_state())
    views = curriculum(x, y, strengths=strengths, victim=NO_VICTIM, generator=generator)
    factor, turn, lean, move = (
        leaf.perturbation.sample(4, strengths["rot"], again).double().numpy()
        for leaf in curriculum.tree.leaves.values()
    )
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    expected = np.zeros(x.shape)
    for n in range(4):
        angle = math.radians(turn[n, 0])
        slope_x, slope_y = np.tan(np.radians(lean[n]))
        for row in range(height):
            for column in range(width):
                # Invert each link, the last one first.
                px, py = column - middle_x - move[n, 0], row - middle_y - move[n, 1]
                py += slope_y * px
                px += slope_x * py
                px, py = (
                    math.cos(angle) * px - math.sin(angle) * py,
                    math.sin(angle) * px + math.cos(angle) * py,
                )
                px, py = px / (1 + factor[n, 0]), py / (1 + factor[n, 0])
                expected[n, :, row, column] = bilinear_zero(
                    x[n].double().numpy(), px + middle_x, py + middle_y
                )
    assert np.abs(views.transformed.numpy() - expected).max() < 1e-4
    assert torch.equal(views.transformed[3], x[3])


@settings(max_examples=40, deadline=None)
@given(
    factors=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    leans=st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
    degrees=st.floats(-180, 180),
)
def test_changes_of_size_compose_and_commute_with_maps_that_fix_the_centre(factors, leans, degrees):
    one, other = (scale_theta(torch.tensor([factor])) for factor in factors)
    product = scale_theta(torch.tensor([factors[0] * factors[1]]))
    torch.testing.assert_close(compose(one, other), product)
    turned = compose(shear_theta(torch.tensor([leans])), rotation_theta(torch.tensor([degrees])))
    torch.testing.assert_close(compose(one, turned), compose(turned, one))
    # Neither a shear nor a rotation changes areas.
    assert float(torch.linalg.det(turned[0, :, :2])) == pytest.approx(1, abs=1e-4)


def test_a_chain_of_rot_and_trans_is_one_interpolation_in_the_order_written(generator):
    x, y = torch.rand(5, 1, 12, 12), torch.zeros(5, dtype=torch.long)
    curriculum = Curriculum.parse("rot:40+trans:2", ["constant"])
    strengths = {"rot": 1.0, "trans": 1.0}
    views = curriculum(x, y, strengths=strengths, victim=NO_VICTIM, generator=generator)
    again = torch.Generator().manual_seed(0)
    rot, trans = Rotation(budget=40.0), Translation(budget=2.0)
    degrees, pixels = rot.sample(5, 1.0, again), trans.sample(5, 1.0, again)
    theta = compose(rotation_theta(degrees[:, 0]), translation_theta(pixels))
    torch.testing.assert_close(views.transformed, warp(x, theta))
    twice = trans.apply(rot.apply(x, degrees), pixels)
    assert not torch.allclose(views.transformed, twice, atol=1e-3)  # two interpolations blur


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
    assert torch.equal(views.transformed, expected)


def test_the_identity_returns_the_image_bit_for_bit():
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


def test_padding_fills_the_uncovered_edge():
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


@settings(max_examples=40, deadline=None)
@given(
    made=st.one_of(
        st.builds(Rotation, budget=st.floats(0, 180)),
        st.builds(Translation, budget=st.floats(0, 1e6)),
        st.builds(Scale, budget=st.floats(0, 0.99)),
        st.builds(Shear, budget=st.floats(0, 80)),
    ),
    strengths=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5),
    points=st.integers(1, 6),
)
def test_parameters_lie_within_budget_times_strength(made, strengths, points):
    n, strength_N = len(strengths), torch.tensor(strengths)
    x = torch.rand(n, 1, 5, 6)
    for strength in (strengths[0], strength_N):
        largest = torch.as_tensor(strength).expand(n)[:, None] * made.budget * (1 + 1e-6)
        drawn = made.sample(n, strength, torch.Generator().manual_seed(0))
        grid = made.grid(strength, points)
        grid = grid if grid.ndim == 3 else grid[:, None].expand(-1, n, -1)
        assert len(grid) == points ** drawn.shape[1]
        assert (drawn.abs() <= largest).all()
        assert (grid.abs() <= largest).all()
        assert made.apply(x, drawn).isfinite().all()


def test_grids_are_regular_and_include_the_identity():
    degrees = Rotation(budget=30.0).grid(1.0, 31)
    assert degrees.shape == (31, 1)
    torch.testing.assert_close(degrees[:, 0], torch.arange(-30.0, 31.0, 2.0))
    pixels = Translation(budget=3.0).grid(1.0, 5)
    assert pixels.shape == (25, 2)
    assert (pixels == 0).all(1).sum() == 1
