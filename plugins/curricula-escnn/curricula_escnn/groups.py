"""Groups of rotations and reflections of the plane, and filters transformed by them."""

import functools
import warnings

import torch
from torch import Tensor

from curricula.errors import UserError

with warnings.catch_warnings():
    # escnn works without py3nj, which needs a Fortran compiler; no other warning is ignored.
    warnings.filterwarnings("ignore", message=".*py3nj.*")
    from escnn import gspaces
    from escnn import nn as enn

MAX_ROTATIONS = 16
GROUPS = tuple(f"{kind}{n}" for kind in "cd" for n in range(1, MAX_ROTATIONS + 1))


@functools.cache
def space(group: str) -> gspaces.GSpace2D:
    """Return escnn's space of a group: cN has the N rotations by multiples of 360/N degrees, dN
    also their products with the reflection that swaps left and right; N is 1 to 16.

    Raises:
        UserError: the group is not in GROUPS.
    """
    if group not in GROUPS:
        raise UserError(
            f"group must be c1 to c{MAX_ROTATIONS} or d1 to d{MAX_ROTATIONS}, not {group}"
        )
    rotations = int(group[1:])
    if group.startswith("c"):
        return gspaces.rot2dOnR2(rotations)
    return gspaces.flipRot2dOnR2(rotations)


def order(group: str) -> int:
    """Return the number of elements of a group: N for cN, 2N for dN."""
    return int(space(group).fibergroup.order())


@functools.cache
def quotients(group: str) -> Tensor:
    """Return the int64 table (G, G) whose entry [h, g] is the index of the element h^-1 g."""
    elements = list(space(group).fibergroup.elements)
    table = [[elements.index(~h @ g) for g in elements] for h in elements]
    return torch.tensor(table, device="cpu")


@functools.cache
def moved_filters(group: str, side: int) -> Tensor:
    """Return a basis of B scalar filters, transformed by each of a group's G elements, (G, B, side
    * side).

    The mean norm of each filter over the group is 1. If the group maps the pixel grid to itself,
    the basis consists of single pixels, so that filters are unrestricted, as in Cohen and Welling
    (2016). Otherwise (for example rotations by 45 degrees) a filter must be defined between the
    pixels: the basis consists of escnn's circular harmonics on Gaussian rings, band-limited against
    aliasing (Weiler and Cesa 2019).
    """
    pixels_P2 = _pixels(side)
    actions_G22 = torch.stack(
        [
            torch.tensor(space(group).basespace_action(h), device="cpu", dtype=torch.float64)
            for h in space(group).fibergroup.elements
        ]
    )
    # A transformed filter has at p the value that the filter has at h^-1 p; h is orthogonal.
    origins_GP2 = torch.einsum("gji,pj->gpi", actions_G22, pixels_P2)
    meets_GPP = torch.cdist(origins_GP2, pixels_P2.expand_as(origins_GP2)) < 1e-4
    if meets_GPP.any(2).all():
        return meets_GPP.mT.float().contiguous()
    filters_BGP = _harmonics(side, origins_GP2.flatten(0, 1)).unflatten(1, (len(actions_G22), -1))
    norms_B11 = filters_BGP.square().sum(2).mean(1)[:, None, None].sqrt()
    return (filters_BGP / norms_B11).transpose(0, 1).contiguous()


def _pixels(side: int) -> Tensor:
    """Return the pixels' coordinates (side * side, 2), row by row: x to the right and y up, in
    pixels from the centre."""
    line = torch.arange(side, device="cpu", dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(-line, line, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1)


def _harmonics(side: int, points_P2: Tensor) -> Tensor:
    """Return escnn's basis of scalar filters sampled at P points, (B, P).

    Its rings pass through the pixels of the middle row, with frequencies up to twice the radius.
    """
    rings = [radius / 2 for radius in range((side - 1) % 2, side, 2)]
    scalar = enn.FieldType(space("c1"), [space("c1").trivial_repr])
    with torch.device("cpu"):
        layer = enn.R2Conv(
            scalar, scalar, side, rings=rings, frequencies_cutoff=2.0, bias=False, initialize=False
        )
        (block,) = layer.basisexpansion.children()
        return block.basis.sample(points_P2.float())[:, block._mask, 0, 0].T
