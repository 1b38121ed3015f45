"""Affine maps of the image plane, as pure functions.

theta_N23 maps a pixel of the output to the place in the input that it shows, both in pixels from
the image's centre (x to the right, y down), so that it means the same at any H and W.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.interfaces import Interpolation, Padding


def identity_theta(n: int, device: torch.device) -> Tensor:
    """theta_N23 of no change."""
    return torch.eye(2, 3, device=device).expand(n, 2, 3)


def rotation_theta(degrees_N: Tensor) -> Tensor:
    """theta_N23 that turns each image by its angle, counter-clockwise as seen (torchvision's
    sign)."""
    radians = degrees_N * (math.pi / 180)
    cos, sin, zero = torch.cos(radians), torch.sin(radians), torch.zeros_like(radians)
    return torch.stack(
        (torch.stack((cos, -sin, zero), -1), torch.stack((sin, cos, zero), -1)), dim=-2
    )


def translation_theta(pixels_N2: Tensor) -> Tensor:
    """theta_N23 that moves each image by (right, down) pixels."""
    linear = torch.eye(2, device=pixels_N2.device).expand(len(pixels_N2), 2, 2)
    return torch.cat((linear, -pixels_N2[:, :, None]), dim=2)


def compose(first_N23: Tensor, second_N23: Tensor) -> Tensor:
    """theta_N23 of doing ``first`` and then ``second`` to an image."""
    linear, shift = first_N23[..., :2], first_N23[..., 2:]
    return torch.cat((linear @ second_N23[..., :2], linear @ second_N23[..., 2:] + shift), dim=-1)


def warp(
    x_NCHW: Tensor,
    theta_N23: Tensor,
    *,
    interpolation: Interpolation = "bilinear",
    padding: Padding = "zeros",
) -> Tensor:
    """Resample each image under its own affine map, in one interpolation.

    An image whose theta is exactly the identity comes back bit for bit.

    Args:
        x_NCHW: images in [0, 1].
        theta_N23: see the head of this file.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what lies outside: ``zeros``, the ``border``'s pixels, or the ``reflection``.

    Returns:
        Images of the same shape, in [0, 1].
    """
    height, width = x_NCHW.shape[2:]
    size = x_NCHW.new_tensor((width, height))
    theta = theta_N23.to(x_NCHW)
    # grid_sample counts from -1 to 1 across an axis: n = 2 p / size of the centred pixel p. In
    # those units the linear part becomes diag(2/size) A diag(size/2) and the shift diag(2/size) b.
    normalised = torch.cat(
        (
            theta[:, :, :2] * size[None, None, :] / size[None, :, None],
            2 * theta[:, :, 2:] / size[None, :, None],
        ),
        dim=2,
    )
    grid = F.affine_grid(normalised, list(x_NCHW.shape), align_corners=False)
    moved = F.grid_sample(
        x_NCHW, grid, mode=interpolation, padding_mode=padding, align_corners=False
    )
    unmoved = (theta == identity_theta(1, x_NCHW.device)).flatten(1).all(1)
    return torch.where(unmoved[:, None, None, None], x_NCHW, moved.clamp_(0, 1))
