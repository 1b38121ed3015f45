"""Proposals of the Square Attack in the l-2 and l-1 balls, which move a change from one window of
the image to another.

As in the code of its authors for AutoAttack; the l-2 form is algorithm 3 of Andriushchenko et al.
2020. Shape suffixes: S side of a window, R and T rows and columns of tiles.
"""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from curricula.perturbations.attacks.norm_ball import l2_norm, project

WindowNorm = Literal["l2", "l1"]
TILES = 5  # tiles along the shorter side of an image
MIN_SIDE = 3  # pixels, of a window


class Draw(Protocol):
    """Returns whole numbers below ``values``, of a shape for each active image."""

    def __call__(self, values: int, *shape: int) -> Tensor: ...


def tiled(x_NCHW: Tensor, eps_N111: Tensor, norm: WindowNorm, draw: Draw) -> Tensor:
    """Return each image with a tile of random sign and direction in every place of a grid, at the
    edge of its ball, NCHW: where the search starts."""
    count, channels, height, width = x_NCHW.shape
    side = max(min(height, width) // TILES, 1)
    rows, columns = height // side, width // side
    tile_SS = pyramid(side, norm).to(x_NCHW)
    turned = draw(2, 1, rows, 1, columns, 1).bool()
    signs = draw(2, channels, rows, 1, columns, 1) * 2 - 1
    tiles = torch.where(turned, tile_SS.T[:, None, :], tile_SS[:, None, :]) * signs
    delta = torch.zeros_like(x_NCHW)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    delta[:, :, top : top + rows * side, left : left + columns * side] = tiles.reshape(
        count, channels, rows * side, columns * side
    )
    return _inside(x_NCHW, delta, eps_N111, norm)


def moved(
    x_NCHW: Tensor, best_NCHW: Tensor, eps_N111: Tensor, side: int, norm: WindowNorm, draw: Draw
) -> Tensor:
    """Return each best image with the change in one random window, and what is left of the radius,
    moved to a second one, NCHW.

    The second window gets its old change, scaled to length 1, plus a pyramid of random sign and
    direction; the sum is scaled to the length that both windows had.

    Args:
        x_NCHW: the images.
        best_NCHW: the best images so far.
        eps_N111: the radius of each ball, in [0, 1] pixel units.
        side: side of the windows, in pixels.
        norm: ``l2`` or ``l1``.
        draw: the source of the places, signs and directions.
    """
    channels, height, width = x_NCHW.shape[1:]
    delta = best_NCHW - x_NCHW
    to, cleared = (_window(height, width, side, draw, x_NCHW.device) for _ in range(2))
    both = delta.flatten(2) * _mask(delta, to, cleared)
    old = delta.flatten(2).gather(2, to.expand(-1, channels, -1))
    pyramid_SS = pyramid(side, norm).to(x_NCHW)
    turned = draw(2, 1, 1).bool()
    signs = draw(2, channels, 1) * 2 - 1
    new = torch.where(turned, pyramid_SS.T.flatten(), pyramid_SS.flatten()) * signs
    new = new + old / _length(old, norm).clamp_min(1e-12)
    left = _left(delta, eps_N111, norm)
    if norm == "l2":
        length = (left / channels + _length(both, norm).square()).sqrt()
    else:  # more than is left of the ball: the projection decides what to give up
        length = left + _length(both, norm) * channels
    new = new / _length(new, norm).clamp_min(1e-12) * length
    flat = delta.flatten(2).scatter(2, cleared.expand(-1, channels, -1), 0)
    flat = flat.scatter(2, to.expand(-1, channels, -1), new)
    return _inside(x_NCHW, flat.reshape_as(x_NCHW), eps_N111, norm)


def side_of(area: float, height: int, width: int) -> int:
    """Return the side of a window with about this area, in pixels: odd where it fits.

    >>> side_of(16.0, 28, 28), side_of(1.0, 28, 28), side_of(900.0, 28, 32)
    (5, 3, 28)
    """
    side = max(round(math.sqrt(area)), MIN_SIDE)
    return min(side + (side % 2 == 0), height, width)


def pyramid(side: int, norm: WindowNorm) -> Tensor:
    """Return a square of length 1 in the norm, whose upper half is positive and whose lower half is
    negative, each highest in its middle, (S, S).

    >>> pyramid(2, "l1")
    tensor([[ 0.0278,  0.4722],
            [-0.0278, -0.4722]])
    """
    upper = side // 2
    square = torch.zeros((side, side))
    if upper:
        square[:upper] = _hill(upper, side, norm)
    square[upper:] = -_hill(side - upper, side, norm)
    return square / (square.norm() if norm == "l2" else square.abs().sum())


def _hill(height: int, width: int, norm: WindowNorm) -> Tensor:
    """Return concentric rectangles, added up: the one at distance r from the middle has the height
    1 / (r + 1) ** 2 in l-2, and ** 4 in l-1. Its length is 1 in the norm."""
    row, column = height // 2, width // 2
    down = (torch.arange(height) - row).abs()[:, None]
    distance = torch.maximum(down, (torch.arange(width) - column).abs())
    levels = torch.arange(max(row, column) + 1)
    heights = (levels + 1.0).pow(-2 if norm == "l2" else -4)
    hill = (heights * (distance[..., None] <= levels)).sum(-1)
    return hill / (hill.norm() if norm == "l2" else hill.sum())


def _window(height: int, width: int, side: int, draw: Draw, device: torch.device) -> Tensor:
    """Return the pixels of a window at a random place for each image, as indices into H x W pixels,
    (N, 1, S * S)."""
    top, left = draw(height - side + 1, 1, 1), draw(width - side + 1, 1, 1)
    along = torch.arange(side, device=device)
    return top * width + left + (along[:, None] * width + along).flatten()


def _mask(delta_NCHW: Tensor, *windows: Tensor) -> Tensor:
    """Return 1 for the pixels of any of the windows and 0 for the others, (N, 1, H * W)."""
    mask = torch.zeros_like(delta_NCHW[:, :1]).flatten(2)
    for window in windows:
        mask = mask.scatter(2, window, 1)
    return mask


def _length(change_NCP: Tensor, norm: WindowNorm) -> Tensor:
    """Return the norm of each channel's change, (N, C, 1)."""
    length: Tensor = torch.linalg.vector_norm(change_NCP, 2 if norm == "l2" else 1, 2, keepdim=True)
    return length


def _left(delta_NCHW: Tensor, eps_N111: Tensor, norm: WindowNorm) -> Tensor:
    """Return what the whole change leaves of the radius, squared in l-2, (N, 1, 1)."""
    if norm == "l2":
        left = eps_N111.square() - l2_norm(delta_NCHW).square()
    else:
        left = eps_N111 - delta_NCHW.abs().sum(dim=(1, 2, 3), keepdim=True)
    return left.clamp_min(0).flatten(2)


def _inside(x_NCHW: Tensor, delta_NCHW: Tensor, eps_N111: Tensor, norm: WindowNorm) -> Tensor:
    """Return the changed images within [0, 1], NCHW: in l-2 the change is first scaled to the whole
    radius, in l-1 it is projected."""
    if norm == "l1":
        return project(x_NCHW + delta_NCHW, x_NCHW, eps_N111, norm)
    scale = eps_N111 / l2_norm(delta_NCHW).clamp_min(1e-12)
    return (x_NCHW + delta_NCHW * scale).clamp(0, 1)
