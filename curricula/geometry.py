"""Affine, projective and other warps of image batches, as pure functions.

A map takes a pixel of the output to the place in the input that it shows. theta_N23 is an affine
map, in pixels from the image's centre (x to the right, y down), so that it means the same at any H
and W. homography_N33 is a projective map, in shares of the image's width and height from its top
left corner.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.interfaces import Interpolation, Padding

PAST_HALF = 1e-3  # pixels; by which ``nearest`` looks further right and down


def identity_theta(n: int, device: torch.device) -> Tensor:
    """Return the affine matrices theta_N23 of the identity, for n images."""
    return torch.eye(2, 3, device=device).expand(n, 2, 3)


def rotation_theta(degrees_N: Tensor) -> Tensor:
    """Return the affine matrices theta_N23 that rotate each image by its angle in degrees,
    counter-clockwise as in torchvision.

    >>> rotation_theta(torch.tensor([30.0]))
    tensor([[[ 0.8660, -0.5000,  0.0000],
             [ 0.5000,  0.8660,  0.0000]]])
    """
    radians = degrees_N * (math.pi / 180)
    cos, sin, zero = torch.cos(radians), torch.sin(radians), torch.zeros_like(radians)
    return torch.stack(
        (torch.stack((cos, -sin, zero), -1), torch.stack((sin, cos, zero), -1)), dim=-2
    )


def translation_theta(pixels_N2: Tensor) -> Tensor:
    """Return the affine matrices theta_N23 that shift each image by (right, down) pixels.

    >>> translation_theta(torch.tensor([[2.0, 1.0]]))
    tensor([[[ 1.,  0., -2.],
             [ 0.,  1., -1.]]])
    """
    linear = torch.eye(2, device=pixels_N2.device).expand(len(pixels_N2), 2, 2)
    return torch.cat((linear, -pixels_N2[:, :, None]), dim=2)


def scale_theta(factor_N: Tensor) -> Tensor:
    """Return the affine matrices theta_N23 that enlarge each image about its centre by a factor
    above 0."""
    linear = torch.eye(2, 3, device=factor_N.device)
    return linear / factor_N[:, None, None]


def shear_theta(degrees_N2: Tensor) -> Tensor:
    """Return the affine matrices theta_N23 that shear each image by its two angles in degrees,
    along x, then along y (torchvision's signs).

    A point y pixels below the centre moves left by y tan(first angle); then a point x pixels to
    the right of the centre moves up by x tan(second angle).
    """
    along_x, along_y = torch.tan(degrees_N2 * (math.pi / 180)).unbind(1)
    one, zero = torch.ones_like(along_x), torch.zeros_like(along_x)
    return torch.stack(
        (
            torch.stack((1 + along_x * along_y, along_x, zero), -1),
            torch.stack((along_y, one, zero), -1),
        ),
        dim=-2,
    )


def quadrilateral_homography(corners_N42: Tensor) -> Tensor:
    """Return the matrices homography_N33 that move the four corners of each image to the positions
    ``corners_N42``.

    The closed form of Heckbert (1989, Fundamentals of Texture Mapping and Image Warping, section
    2.2.3), inverted by cofactors: there is no system to solve, and unmoved corners give exactly
    the identity.

    Args:
        corners_N42: new places of the top left, top right, bottom right and bottom left corner, as
            (x, y) shares of the width and height; a convex quadrilateral.

    >>> corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> torch.equal(quadrilateral_homography(corners[None])[0], torch.eye(3))
    True
    """
    start, right, across, down = corners_N42.unbind(1)
    from_right, from_down = right - across, down - across
    bend = start - right + across - down  # 0 for a parallelogram
    area_N1 = _cross(from_right, from_down)[:, None]
    bend_u = _cross(bend, from_down)[:, None] / area_N1
    bend_v = _cross(from_right, bend)[:, None] / area_N1
    # The map from input to output takes (u, v, 1) to u * along_u + v * along_v + origin.
    along_u = torch.cat((right - start + bend_u * right, bend_u), dim=1)
    along_v = torch.cat((down - start + bend_v * down, bend_v), dim=1)
    origin = F.pad(start, (0, 1), value=1.0)
    return torch.stack(
        (
            torch.linalg.cross(along_v, origin),
            torch.linalg.cross(origin, along_u),
            torch.linalg.cross(along_u, along_v),
        ),
        dim=1,
    )


def _cross(a_N2: Tensor, b_N2: Tensor) -> Tensor:
    return a_N2[:, 0] * b_N2[:, 1] - a_N2[:, 1] * b_N2[:, 0]


def compose(first_N23: Tensor, second_N23: Tensor) -> Tensor:
    """Return the affine matrices theta_N23 that apply ``first`` and then ``second`` to an image.

    >>> right, twice_the_size = translation_theta(torch.ones(1, 2)), scale_theta(2 * torch.ones(1))
    >>> compose(right, twice_the_size)  # the shift is enlarged with the image
    tensor([[[ 0.5000,  0.0000, -1.0000],
             [ 0.0000,  0.5000, -1.0000]]])
    """
    linear, shift = first_N23[..., :2], first_N23[..., 2:]
    return torch.cat((linear @ second_N23[..., :2], linear @ second_N23[..., 2:] + shift), dim=-1)


def warp(
    x_NCHW: Tensor,
    theta_N23: Tensor,
    *,
    interpolation: Interpolation = "bilinear",
    padding: Padding = "zeros",
) -> Tensor:
    """Return the images NCHW, each resampled once under its affine matrix (2, 3).

    An image whose theta is exactly the identity is returned bit for bit.

    Args:
        x_NCHW: images in [0, 1].
        theta_N23: the maps; see the head of this module.
        interpolation: ``bilinear`` or ``nearest``, which half-way between two pixels takes the
            right or lower one.
        padding: what fills the area outside the image: ``zeros``, the ``border``'s pixels, or the
            ``reflection``.

    Returns:
        Images of the same shape, in [0, 1].

    >>> x = torch.tensor([0.0, 0.0, 1.0, 0.0]).reshape(1, 1, 1, 4)
    >>> warp(x, translation_theta(torch.tensor([[-0.5, 0.0]]))).squeeze()
    tensor([0.0000, 0.5000, 0.5000, 0.0000])
    """
    height, width = x_NCHW.shape[2:]
    size = x_NCHW.new_tensor((width, height))
    theta = theta_N23.to(x_NCHW)
    # grid_sample's coordinates run from -1 to 1 across an axis: n = 2 p / size for a centred pixel
    # p. In them the linear part is diag(2/size) A diag(size/2) and the shift is diag(2/size) b.
    normalised = torch.cat(
        (
            theta[:, :, :2] * size[None, None, :] / size[None, :, None],
            2 * theta[:, :, 2:] / size[None, :, None],
        ),
        dim=2,
    )
    grid = F.affine_grid(normalised, list(x_NCHW.shape), align_corners=False)
    unmoved = (theta == identity_theta(1, x_NCHW.device)).flatten(1).all(1)
    return _resample(x_NCHW, grid, unmoved, interpolation, padding)


def warp_projective(
    x_NCHW: Tensor,
    homography_N33: Tensor,
    *,
    interpolation: Interpolation = "bilinear",
    padding: Padding = "zeros",
) -> Tensor:
    """Return the images NCHW, each resampled once under its projective matrix (3, 3); the other
    arguments are those of `warp`."""
    homography = homography_N33.to(x_NCHW)
    unmoved = (homography == torch.eye(3, device=x_NCHW.device)).flatten(1).all(1)
    u_W, v_H = _pixel_centres(x_NCHW)
    columns = homography[:, None, None].unbind(-1)
    place = columns[0] * u_W[:, None] + columns[1] * v_H[:, None, None] + columns[2]
    depth = place[..., 2:]
    depth = torch.where(depth.abs() < 1e-6, 1e-6, depth)  # avoids dividing by 0 at the horizon
    return _resample(x_NCHW, 2 * place[..., :2] / depth - 1, unmoved, interpolation, padding)


def warp_displaced(
    x_NCHW: Tensor,
    displacement_NHW2: Tensor,
    *,
    interpolation: Interpolation = "bilinear",
    padding: Padding = "zeros",
) -> Tensor:
    """Return the images NCHW, resampled so that each output pixel shows the input at its own
    position plus its displacement, (right, down) in pixels; the other arguments are those of
    `warp`."""
    height, width = x_NCHW.shape[2:]
    displacement = displacement_NHW2.to(x_NCHW)
    unmoved = (displacement == 0).flatten(1).all(1)
    u_W, v_H = _pixel_centres(x_NCHW)
    place = torch.stack(
        (u_W + displacement[..., 0] / width, v_H[:, None] + displacement[..., 1] / height), -1
    )
    return _resample(x_NCHW, 2 * place - 1, unmoved, interpolation, padding)


def _pixel_centres(x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the x coordinate of each column's centre (W,) and the y coordinate of each row's
    centre (H,), as shares of width and height in (0, 1)."""
    height, width = x_NCHW.shape[2:]
    columns = torch.arange(width, device=x_NCHW.device, dtype=x_NCHW.dtype)
    rows = torch.arange(height, device=x_NCHW.device, dtype=x_NCHW.dtype)
    return (columns + 0.5) / width, (rows + 0.5) / height


def _resample(
    x_NCHW: Tensor,
    grid_NHW2: Tensor,
    unmoved_N: Tensor,
    interpolation: Interpolation,
    padding: Padding,
) -> Tensor:
    """Return the images NCHW sampled at the coordinates ``grid_NHW2`` (x, y), from -1 to 1 across
    an image; images in the mask ``unmoved_N`` are returned unchanged."""
    if interpolation == "nearest":
        # Half-way between two pixels grid_sample rounds to the even one, or as rounding errors have
        # it, so that a shift by half a pixel would show every second pixel twice.
        height, width = x_NCHW.shape[2:]
        grid_NHW2 = grid_NHW2 + grid_NHW2.new_tensor(
            (2 * PAST_HALF / width, 2 * PAST_HALF / height)
        )
    moved = F.grid_sample(
        x_NCHW, grid_NHW2, mode=interpolation, padding_mode=padding, align_corners=False
    )
    return torch.where(unmoved_N[:, None, None, None], x_NCHW, moved.clamp_(0, 1))


def shift(x_NCHW: Tensor, pixels_N2: Tensor, edge: Padding | Literal["wrap"]) -> Tensor:
    """Return the images NCHW, each shifted by whole pixels, (right, down), without interpolation.

    Args:
        x_NCHW: images.
        pixels_N2: whole numbers.
        edge: what fills the uncovered edge: as ``padding`` of `warp`, or ``wrap``, the pixels that
            left on the opposite side.

    >>> x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    >>> shift(x, torch.tensor([[1, 0]]), edge="wrap").squeeze()
    tensor([3., 1., 2.])
    """
    n, channels, height, width = x_NCHW.shape
    pixels = pixels_N2.to(x_NCHW.device, torch.int64)
    columns_NW = _inside(torch.arange(width, device=x_NCHW.device) - pixels[:, :1], width, edge)
    rows_NH = _inside(torch.arange(height, device=x_NCHW.device) - pixels[:, 1:], height, edge)
    if edge == "zeros":
        x_NCHW = F.pad(x_NCHW, (0, 1, 0, 1))
    index = rows_NH[:, :, None] * x_NCHW.shape[3] + columns_NW[:, None, :]
    index = index.reshape(n, 1, -1).expand(-1, channels, -1)
    return x_NCHW.flatten(2).gather(2, index).view(n, channels, height, width)


def _inside(place: Tensor, size: int, edge: Padding | Literal["wrap"]) -> Tensor:
    """Return the index from 0 to ``size - 1`` of the pixel to show at each coordinate along an
    axis; the index ``size`` means a zero."""
    if edge == "wrap":
        return place % size
    if edge == "border":
        return place.clamp(0, size - 1)
    if edge == "reflection":
        folded = place % (2 * size)
        return torch.minimum(folded, 2 * size - 1 - folded)
    return torch.where((place >= 0) & (place < size), place, size)
