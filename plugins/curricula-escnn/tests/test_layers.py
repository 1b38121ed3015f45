"""Layers over a group, against escnn's own layers and transformations."""

from math import gcd

import pytest
import torch
from curricula_escnn.equivariant import FieldNorm, GroupConv, GroupMax
from curricula_escnn.groups import moved_filters, order, space
from escnn import nn as enn

from curricula.errors import UserError

# On the grid, partly on it, and off it.
GROUPS = ["c1", "c2", "c3", "c4", "c6", "c8", "c16", "d1", "d2", "d3", "d4", "d8", "d16"]


def fields(group, count):
    return enn.FieldType(space(group), count * [space(group).regular_repr])


def images(group, channels):
    return enn.FieldType(space(group), channels * [space(group).trivial_repr])


def grid_elements(group):
    """Return the elements of a group that map pixels to pixels."""
    return [
        element
        for element in space(group).fibergroup.elements
        if abs(abs(space(group).basespace_action(element)).max() - 1) < 1e-6
    ]


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def span(layer):
    """Return the filters of each coefficient, one row each."""
    rows = []
    with torch.no_grad():
        for number in range(layer.weight.numel()):
            layer.weight.zero_().view(-1)[number] = 1
            rows.append(layer.expanded()[0].flatten())
    return torch.stack(rows)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("side", [1, 3, 4])
@pytest.mark.parametrize("of_image", [True, False])
def test_a_convolution_commutes_with_escnns_transformations(group, side, of_image):
    torch.manual_seed(0)
    layer = GroupConv(group, 2, 3, side, of_image=of_image, padding=1, bias=True)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -2, 3]))
        before = images(group, 2) if of_image else fields(group, 2)
        x = enn.GeometricTensor(noise(2, before.size, 7, 7), before)
        y = enn.GeometricTensor(layer(x.tensor), fields(group, 3))
        elements = grid_elements(group)
        assert len(elements) == gcd(int(group[1:]), 4) * (1 + group.startswith("d"))
        for element in elements:
            moved = layer(x.transform(element).tensor)
            assert (moved - y.transform(element).tensor).abs().max() < 1e-4
    assert y.tensor.abs().mean() > 0.5


@pytest.mark.parametrize("group", ["c3", "c8", "c16", "d5", "d16"])
@pytest.mark.parametrize("of_image", [True, False])
def test_a_convolution_commutes_with_rotations_off_the_grid_on_smooth_maps(group, of_image):
    """escnn moves maps by linear interpolation, whose error is about 1 % here."""
    torch.manual_seed(0)
    layer = GroupConv(group, 1, 2, 3, of_image=of_image, padding=1)
    before = images(group, 1) if of_image else fields(group, 1)
    wide = torch.nn.functional.interpolate(noise(1, before.size, 6, 6), 31, mode="bicubic")
    x, centre = enn.GeometricTensor(wide, before), (..., slice(10, 21), slice(10, 21))
    with torch.no_grad():
        y = enn.GeometricTensor(layer(x.tensor), fields(group, 2))
        for element in space(group).fibergroup.elements[:: max(1, order(group) // 8)]:
            moved = layer(x.transform(element).tensor)[centre]
            expected = y.transform(element).tensor[centre]
            assert (moved - expected).square().mean() < (0.03**2) * expected.square().mean()


@pytest.mark.parametrize("group", ["c1", "c2", "c4", "d1"])
def test_filters_on_the_grid_are_all_that_commute_including_escnns(group):
    ours = span(GroupConv(group, 1, 1, 3))
    assert torch.linalg.matrix_rank(ours) == len(ours) == 9 * order(group)
    layer = enn.R2Conv(fields(group, 1), fields(group, 1), 3)
    theirs = layer.expand_parameters()[0].detach().flatten()
    nearest = torch.linalg.lstsq(ours.T, theirs[:, None]).solution[:, 0] @ ours
    torch.testing.assert_close(nearest, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("side", "options"),
    [
        (3, {}),
        (2, {"rings": [0.5], "frequencies_cutoff": 2.0}),
        (4, {"rings": [0.5, 1.5], "frequencies_cutoff": 2.0}),
        (5, {"rings": [0.0, 1, 2], "frequencies_cutoff": 2.0}),
    ],
)
@pytest.mark.parametrize("group", ["c3", "c8", "c16"])
def test_filters_off_the_grid_equal_escnns(group, side, options):
    ours = span(GroupConv(group, 1, 1, side))
    layer = enn.R2Conv(fields(group, 1), fields(group, 1), side, **options)
    (block,) = layer.basisexpansion.children()
    theirs = block.sampled_basis.flatten(1)
    assert len(ours) == len(theirs)
    nearest = torch.linalg.lstsq(ours.T, theirs.T).solution.T @ ours
    torch.testing.assert_close(nearest, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("group", ["c4", "d4", "c8", "c16"])
def test_initial_weights_keep_the_scale_of_the_signal(group):
    """He initialisation: the second moment of white noise doubles; a ReLU will halve it."""
    torch.manual_seed(0)
    layer = GroupConv(group, 40, 40, 3)
    x = noise(4, 40 * order(group), 9, 9)
    ratio = layer(x).square().mean() / x.square().mean()
    assert ratio.item() == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("group", ["c4", "c8", "d16"])
def test_moved_filters_have_norm_1_on_average(group):
    norms = moved_filters(group, 5).square().sum(2).mean(0)
    torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_normalisation_equals_escnns(format):
    ours, theirs = FieldNorm("d4", 3), enn.InnerBatchNorm(fields("d4", 3))
    x = noise(4, 24, 5, 6).contiguous(memory_format=format) * 3 + 1
    for training in (True, False):
        ours.train(training), theirs.train(training)
        expected = theirs(enn.GeometricTensor(x, fields("d4", 3))).tensor
        torch.testing.assert_close(ours(x), expected)


def test_the_maximum_over_the_group_equals_escnns():
    x = noise(2, 12, 5, 5)
    pooled = enn.GroupPooling(fields("c4", 3))(enn.GeometricTensor(x, fields("c4", 3)))
    torch.testing.assert_close(GroupMax("c4")(x), pooled.tensor)


def test_filters_are_expanded_in_float32_under_autocast():
    layer = GroupConv("c8", 2, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        filters, _ = layer.expanded()
        assert layer(noise(1, 16, 5, 5)).dtype == torch.bfloat16
    torch.testing.assert_close(filters, layer.expanded()[0], atol=0, rtol=0)


@pytest.mark.parametrize("group", ["c0", "c17", "d017", "so2", "C4", "c"])
def test_other_groups_are_refused(group):
    with pytest.raises(UserError, match=f"group must be c1 to c16 or d1 to d16, not {group}$"):
        space(group)
