"""Linear filters of image batches, with the borders of the published functions.

Letters of shapes beside N, C, H, W: T taps of a kernel, S side of a square kernel.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["nearest", "symmetric", "mirror"]
"""Pixels a b c continue as a a | a b c | c c, b a | a b c | c b, c b | a b c | b a."""

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey (ITU-R BT.601)


def luminance(x_NCHW: Tensor) -> Tensor:
    """Return the grey of images with three channels, (N, 1, H, W); images with one unchanged."""
    if x_NCHW.shape[1] == 1:
        return x_NCHW
    return (x_NCHW * x_NCHW.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def as_colour(
    change: Callable[[Tensor, Any, Any], Tensor], x_N1HW: Tensor, severity: Any, fields: Any
) -> Tensor:
    """Return the grey of grey images that were changed as images of three equal channels."""
    return luminance(change(x_N1HW.expand(-1, 3, -1, -1), severity, fields).clamp(0, 1))


def border_index(place: Tensor, size: int, border: Border) -> Tensor:
    """Return the index from 0 to size - 1 of the pixel that is seen at each whole coordinate.

    >>> border_index(torch.arange(-2, 5), 3, "mirror")
    tensor([2, 1, 0, 1, 2, 1, 0])
    """
    if border == "nearest":
        return place.clamp(0, size - 1)
    last = 2 * size - 1 if border == "symmetric" else max(2 * size - 2, 1)
    folded = place % (last + 1 if border == "symmetric" else last)
    return torch.minimum(folded, last - folded).clamp(0, size - 1)


def gaussian_matrix(
    size: int, sigma_N: Tensor, *, widest: float, truncate: float = 4.0, border: Border = "nearest"
) -> Tensor:
    """Return the matrices (N, size, size) that filter one axis by a Gaussian, as scipy's
    ``gaussian_filter`` does.

    Args:
        size: pixels of the axis.
        sigma_N: standard deviations in pixels; 0 gives the identity.
        widest: a number of which no standard deviation is larger.
        truncate: standard deviations at which the Gaussian ends.
        border: what lies beyond the border.
    """
    reach = int(truncate * widest + 0.5)
    step_T = torch.arange(-reach, reach + 1, device=sigma_N.device)
    sigma_N1 = sigma_N[:, None]
    weight_NT = torch.exp(-0.5 * (step_T / sigma_N1.clamp_min(1e-3)) ** 2)
    weight_NT = weight_NT * (step_T.abs() <= (truncate * sigma_N1 + 0.5).floor())
    weight_NT = weight_NT / weight_NT.sum(1, keepdim=True)
    place = torch.arange(size, device=sigma_N.device)[:, None] + step_T
    n, shape = len(sigma_N), place.shape
    matrix = sigma_N.new_zeros((n, size, size))
    index = border_index(place, size, border).expand(n, *shape)
    return matrix.scatter_add_(2, index, weight_NT[:, None].expand(n, *shape))


def gaussian_blur(x_NCHW: Tensor, sigma_N: Tensor, *, widest: float) -> Tensor:
    """Return images filtered by a Gaussian of standard deviations (N,), or (1,) for all."""
    rows, columns = (
        gaussian_matrix(size, sigma_N, widest=widest)[:, None] for size in x_NCHW.shape[2:]
    )
    return rows @ x_NCHW @ columns.mT


def convolve(
    x_NCHW: Tensor, kernel: Sequence[Sequence[float]], border: Border = "mirror"
) -> Tensor:
    """Return images NCHW correlated with one small square kernel of an odd side, in each channel;
    exact for whole numbers."""
    height, width = x_NCHW.shape[2:]
    wide = _widened(x_NCHW, len(kernel) // 2, border)
    out = torch.zeros_like(x_NCHW)
    for row, weights in enumerate(kernel):
        for column, weight in enumerate(weights):
            if weight:
                out.add_(wide[:, :, row : row + height, column : column + width], alpha=weight)
    return out


def blurred(x_NCHW: Tensor, kernel_SS: Tensor) -> Tensor:
    """Return images NCHW convolved with one large square kernel of an odd side, in each channel, by
    Fourier transforms; the border is mirrored."""
    height, width = x_NCHW.shape[2:]
    reach = len(kernel_SS) // 2
    wide = _widened(x_NCHW, reach, "mirror")
    spectrum = torch.fft.rfft2(kernel_SS.to(x_NCHW), s=wide.shape[2:])
    out: Tensor = torch.fft.irfft2(torch.fft.rfft2(wide) * spectrum, s=wide.shape[2:])
    return out[:, :, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def _widened(x_NCHW: Tensor, by: int, border: Border) -> Tensor:
    """Return images with ``by`` more pixels at each edge."""
    rows, columns = (
        border_index(torch.arange(-by, size + by, device=x_NCHW.device), size, border)
        for size in x_NCHW.shape[2:]
    )
    return x_NCHW[:, :, rows][..., columns]


def box_blur(x_NCHW: Tensor) -> Tensor:
    """Return the mean over the 3 x 3 pixels about each pixel."""
    return convolve(x_NCHW, [[1 / 9] * 3] * 3)


def disc(radius: int, alias_sigma: float) -> Tensor:
    """Return the kernel of a lens out of focus: a disc, its edge smoothed by a Gaussian."""
    reach, side = (8, 3) if radius <= 8 else (radius, 5)
    place = torch.arange(-reach, reach + 1.0, dtype=torch.float64)
    inside = (place[:, None] ** 2 + place**2 <= radius**2).double()
    steps = torch.arange(side, dtype=torch.float64) - side // 2
    smooth = torch.exp(-0.5 * (steps / alias_sigma) ** 2)
    smooth = smooth / smooth.sum()
    return convolve((inside / inside.sum())[None, None], (smooth[:, None] * smooth).tolist())[0, 0]


def motion_blur(x_NCHW: Tensor, radius: int, sigma: float, degrees_N: Tensor) -> Tensor:
    """Return images blurred along a direction of each image's own.

    The kernel is one half of a Gaussian, on 2 radius + 1 pixels of a line. Once the line leaves
    the image the rest of the kernel is left out, so a small image becomes darker (as published).
    """
    n, channels, height, width = x_NCHW.shape
    taps = range(2 * radius + 1)
    weight = [math.exp(-(tap**2) / (2 * sigma**2)) for tap in taps]
    radians_N1 = torch.deg2rad(degrees_N)[:, None]
    row_H = torch.arange(height, device=x_NCHW.device)
    column_W = torch.arange(width, device=x_NCHW.device)
    flat = x_NCHW.flatten(2)
    out = torch.zeros_like(flat)
    for tap in taps:
        down_N1 = -(tap * radians_N1.sin() - 0.5).ceil().long()
        right_N1 = -(tap * radians_N1.cos() - 0.5).ceil().long()
        inside_N1 = (down_N1.abs() < height) & (right_N1.abs() < width)
        rows_NH = (row_H - down_N1).clamp(0, height - 1)
        columns_NW = (column_W - right_N1).clamp(0, width - 1)
        index = (rows_NH[:, :, None] * width + columns_NW[:, None]).reshape(n, 1, -1)
        share_N11 = (inside_N1 * (weight[tap] / sum(weight)))[:, :, None]
        out += share_N11 * flat.gather(2, index.expand(-1, channels, -1))
    return out.reshape(x_NCHW.shape)


def zoomed(x_NCHW: Tensor, factor: float) -> Tensor:
    """Return the centres of images, enlarged to the images' size or a little more (bilinear, corner
    pixels on corner pixels)."""
    heights = [math.ceil(size / factor) for size in x_NCHW.shape[2:]]
    top, left = ((size - kept) // 2 for size, kept in zip(x_NCHW.shape[2:], heights, strict=True))
    kept = x_NCHW[:, :, top : top + heights[0], left : left + heights[1]]
    size = [round(side * factor) for side in heights]
    return F.interpolate(kept, size=size, mode="bilinear", align_corners=True)


def resampled(x_NCHW: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images NCHW with each axis multiplied by its matrix."""
    return rows.to(x_NCHW) @ x_NCHW @ columns.to(x_NCHW).mT
