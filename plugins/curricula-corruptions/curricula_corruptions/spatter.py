"""`spatter`: drops of water or mud.

The published function calls OpenCV for edges, distances and the histogram; here they are computed
on the device, for all images at once.
"""

import math

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula_corruptions import filters
from curricula_corruptions.blur import whole_levels
from curricula_corruptions.corruption import Fields, Stepped, gaussian, severity_budget

SPATTER = (
    (0.65, 0.3, 4.0, 0.69, 0.6),
    (0.65, 0.3, 3.0, 0.68, 0.6),
    (0.65, 0.3, 2.0, 0.68, 0.5),
    (0.65, 0.3, 1.0, 0.65, 1.5),
    (0.67, 0.4, 1.0, 0.65, 1.5),
)
"""By severity: mean, deviation and blur of the liquid; its least value; strength of the water or
blur of the mud."""

WATER = (175, 238, 238)  # levels of red, green and blue
MUD = (63, 42, 20)
MUDDY = 4  # first severity of mud
LOW, HIGH = 50, 150  # thresholds of edges, in levels
FARTHEST = 20.0  # pixels; larger distances from an edge count as this one
DIAGONAL, KNIGHT = 1.4, 2.1969  # lengths in OpenCV's 5 x 5 mask; along an axis a step is 1 long
STEPS = tuple(
    (down, right, DIAGONAL if abs(down) == abs(right) else KNIGHT)
    for down in (-2, -1, 1, 2)
    for right in (-2, -1, 1, 2)
    if (abs(down), abs(right)) != (2, 2)
)
"""The steps that are not along an axis: down, right, length."""


def _seen(wide_NCHW: Tensor, down: int, right: int) -> Tensor:
    """Return what lies (down, right) of each pixel of images padded by 2 pixels."""
    height, width = wide_NCHW.shape[2:]
    return wide_NCHW[:, :, 2 + down : height - 2 + down, 2 + right : width - 2 + right]


def edges(level_N1HW: Tensor) -> Tensor:
    """Return the mask of edges of images in whole levels (Canny 1986, as OpenCV has it: Sobel,
    absolute sums, thresholds 50 and 150)."""
    right = filters.convolve(level_N1HW, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], "nearest")
    down = filters.convolve(level_N1HW, [[-1, -2, -1], [0, 0, 0], [1, 2, 1]], "nearest")
    size = right.abs() + down.abs()
    wide = F.pad(size, (2, 2, 2, 2))

    def before(rows: int, columns: int) -> Tensor:
        return size > _seen(wide, rows, columns)

    def after(rows: int, columns: int) -> Tensor:
        return size >= _seen(wide, rows, columns)

    flat = round(math.tan(math.pi / 8) * 2**15) / 2**15
    across = before(0, -1) & after(0, 1)
    along = before(-1, 0) & after(1, 0)
    falling = before(-1, -1) & before(1, 1)
    rising = before(-1, 1) & before(1, -1)
    diagonal = torch.where((right < 0) ^ (down < 0), rising, falling)
    steep = torch.where(down.abs() > right.abs() * (flat + 2), along, diagonal)
    ridge = torch.where(down.abs() < right.abs() * flat, across, steep)
    weak = ridge & (size > LOW)
    strong = weak & (size > HIGH)
    # An edge grows from its strong pixels through the weak ones; no path is longer than the image.
    for _ in range(level_N1HW[0].numel()):
        grown = (F.max_pool2d(strong.float(), 3, 1, 1) > 0) & weak
        if torch.equal(grown, strong):
            break
        strong = grown
    return strong


def distances(edge_N1HW: Tensor) -> Tensor:
    """Return each pixel's distance from the nearest edge, at most 20 pixels, along the steps of
    OpenCV's 5 x 5 chamfer mask."""
    out = torch.where(edge_N1HW, 0.0, FARTHEST)
    # The steps of a way may be in any order: those along the axes first, each axis at once.
    for axis in (2, 3):
        place = torch.arange(out.shape[axis], device=out.device, dtype=out.dtype)
        place = place[:, None] if axis == 2 else place
        ahead = (out - place).cummin(axis).values + place
        behind = (out + place).flip(axis).cummin(axis).values.flip(axis) - place
        out = torch.minimum(ahead, behind)
    for _ in range(math.ceil(FARTHEST / DIAGONAL)):
        wide = F.pad(out, (2, 2, 2, 2), value=FARTHEST)
        for down, right, length in STEPS:
            out = torch.minimum(out, _seen(wide, down, right) + length)
    return out


def equalised(level_N1HW: Tensor) -> Tensor:
    """Return images of whole levels from 0 to 255 with an even histogram, as OpenCV's
    ``equalizeHist``; an image of one level stays."""
    n = len(level_N1HW)
    flat = level_N1HW.reshape(n, -1).long()
    counts = flat.new_zeros((n, 256)).scatter_add_(1, flat, torch.ones_like(flat))
    below = counts.cumsum(1)
    darkest = counts.gather(1, flat.amin(1, keepdim=True))
    total = flat.shape[1]
    scale = 255 / (total - darkest).clamp_min(1)
    table = ((below - darkest) * scale).round().clamp(0, 255)
    even = torch.where(darkest < total, table.gather(1, flat), flat)
    return even.to(level_N1HW).view_as(level_N1HW)


@attrs.frozen(kw_only=True)
class Spatter(Stepped):
    """Splash the image with drops: of water at severities 1 to 3, of mud at 4 and 5.

    The drops are what exceeds a threshold of smoothed white noise; water is lighter along their
    edges. Between two severities the images are mixed.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        Water lightens, mud darkens:

        >>> x, generator = torch.full((1, 3, 64, 64), 0.5), torch.Generator().manual_seed(0)
        >>> for strength in (0.6, 1.0):
        ...     changed = Spatter()(x, None, strength=strength, victim=None, generator=generator)
        ...     print(bool(changed.mean() > 0.5))
        True
        False
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return standard normal numbers (N, 1, H, W) of the liquid."""
        n, _, height, width = x_NCHW.shape
        return (gaussian((n, 1, height, width), generator),)

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return splashed images."""
        if x_NCHW.shape[1] == 1:
            return filters.as_colour(self.at, x_NCHW, severity, fields)
        mean, deviation, blur, least, amount = SPATTER[severity - 1]
        liquid = filters.gaussian_blur(
            mean + deviation * fields[0], x_NCHW.new_tensor([blur]), widest=blur
        )
        liquid = torch.where(liquid < least, 0, liquid)
        colour = x_NCHW.new_tensor(MUD if severity >= MUDDY else WATER)[:, None, None] / 255
        if severity >= MUDDY:
            drops = (liquid > least).to(x_NCHW)
            drops = filters.gaussian_blur(drops, x_NCHW.new_tensor([amount]), widest=amount)
            drops = torch.where(drops < 0.8, 0, drops)
            return x_NCHW * (1 - drops) + colour * drops
        return x_NCHW + (amount * water(liquid) * colour).clamp(0, 1)


def water(liquid_N1HW: Tensor) -> Tensor:
    """Return how much water there is in each pixel, at most 1: the liquid times a relief that is
    higher along the drops' edges."""
    level = whole_levels(liquid_N1HW) * 255
    distance = distances(edges(level))
    relief = equalised((filters.box_blur(distance) + 1e-4).floor())
    relief = filters.convolve(relief, [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]).clamp(0, 255)
    relief = filters.box_blur(relief).round()
    out = level * relief
    most = out.amax((1, 2, 3), keepdim=True)
    return out / torch.where(most > 0, most, 1)
