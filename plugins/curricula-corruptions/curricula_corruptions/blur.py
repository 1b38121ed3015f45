"""Blur: `defocus-blur`, `glass-blur`, `motion-blur`, `zoom-blur` and `gaussian-blur`."""

import attrs
import numpy as np
import torch
from torch import Tensor

from curricula_corruptions import filters
from curricula_corruptions.corruption import (
    Corruption,
    Fields,
    Stepped,
    constant,
    severity_budget,
    uniform,
)


@attrs.frozen(kw_only=True)
class GaussianBlur(Corruption):
    """Blur by a Gaussian.

    Its standard deviation is 1, 2, 3, 4 and 6 pixels at severities 1 to 5, linear between. Beyond
    the border lies the nearest pixel.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x = torch.zeros(1, 1, 1, 5)
        >>> x[..., 2] = 1.0
        >>> GaussianBlur()(x, None, strength=0.2, victim=None, generator=None).squeeze()
        tensor([0.0540, 0.2420, 0.3989, 0.2420, 0.0540])
    """

    budget: float = severity_budget()

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return blurred images."""
        sigma_N = constant(severity_N, (0, 1, 2, 3, 4, 6)).flatten()
        return filters.gaussian_blur(x_NCHW, sigma_N, widest=6.0)


@attrs.frozen(kw_only=True)
class DefocusBlur(Stepped):
    """Blur by a disc with a smoothed edge, as a lens out of focus.

    Its radius is 3, 4, 6, 8 and 10 pixels at severities 1 to 5; between them the images are mixed.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        A point becomes a disc of radius 3:

        >>> x = torch.zeros(1, 1, 9, 9)
        >>> x[..., 4, 4] = 1.0
        >>> changed = DefocusBlur()(x, None, strength=0.2, victim=None, generator=None)
        >>> (changed[0, 0, 4] > 0.01).int()
        tensor([0, 1, 1, 1, 1, 1, 1, 1, 0], dtype=torch.int32)
    """

    budget: float = severity_budget()

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images out of focus."""
        radius, alias = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
        return filters.blurred(x_NCHW, filters.disc(radius, alias))


MOST_SHUFFLES = 3
CHAIN_DOUBLINGS = 7  # resolves chains of 128 pixels; a chain of 64 has a probability below 1e-20


def shuffled(x_NCHW: Tensor, u_N2HW: Tensor, reach: int) -> Tensor:
    """Return images whose inner pixels are copies of near pixels, as `glass-blur` shuffles them.

    The published loop visits the pixels from the last to the first and means to exchange each with
    one at most ``reach`` away. Both sides of its assignment are views of the same array, so it
    copies; a pixel may copy one that was visited before. A chain of copies is followed here by
    doubling its steps.

    Args:
        x_NCHW: images.
        u_N2HW: uniform numbers in [0, 1) for the steps right and down.
        reach: the longest step in pixels.
    """
    channels, height, width = x_NCHW.shape[1:]
    step = (u_N2HW * (2 * reach)).floor().long() - reach
    place = torch.arange(height * width, device=x_NCHW.device).reshape(height, width)
    inner = torch.zeros_like(place, dtype=torch.bool)
    inner[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    source = torch.where(inner, place + step[:, 1] * width + step[:, 0], place).flatten(1)
    place = place.flatten()
    last = torch.where(source > place, source, place)
    for _ in range(CHAIN_DOUBLINGS):
        last = last.gather(1, last)
    source = source.gather(1, last)
    return x_NCHW.flatten(2).gather(2, source[:, None].expand(-1, channels, -1)).view_as(x_NCHW)


@attrs.frozen(kw_only=True)
class GlassBlur(Stepped):
    """Blur by a Gaussian, copy pixels from random near places, and blur again, as frosted glass.

    Standard deviation, longest step and number of shuffles are (0.7, 1, 2), (0.9, 2, 1),
    (1, 2, 3), (1.1, 3, 2) and (1.5, 4, 2) at severities 1 to 5; between them the images are mixed.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.full((1, 1, 16, 16), 0.5), torch.Generator().manual_seed(0)
        >>> changed = GlassBlur()(x, None, strength=1.0, victim=None, generator=generator)
        >>> f"{(changed - x).abs().max():.3f}"  # an even image changes by rounding only
        '0.002'
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return uniform numbers for the steps of each shuffle, right and down."""
        n, _, height, width = x_NCHW.shape
        return (uniform((n, MOST_SHUFFLES, 2, height, width), generator),)

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images behind glass."""
        sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[
            severity - 1
        ]
        sigma_1 = x_NCHW.new_tensor([sigma])
        out = filters.gaussian_blur(x_NCHW, sigma_1, widest=sigma)
        out = whole_levels(out)
        for shuffle in range(times):
            out = shuffled(out, fields[0][:, shuffle], reach)
        return filters.gaussian_blur(out, sigma_1, widest=sigma)


def whole_levels(x: Tensor) -> Tensor:
    """Return values in [0, 1] rounded down to whole levels of 255, as the published functions do
    between two steps.

    The sum of a filter's weights may be a little below 1; a ten-thousandth of a level more keeps
    an even area at its level.
    """
    return (x * 255 + 1e-4).floor().clamp(0, 255) / 255


@attrs.frozen(kw_only=True)
class MotionBlur(Stepped):
    """Blur along a random direction, within 45 degrees of the horizontal.

    The blur is one half of a Gaussian: its radius and standard deviation in pixels are (10, 3),
    (15, 5), (15, 8), (15, 12) and (20, 15) at severities 1 to 5; between them the images are
    mixed. Where the blur is longer than the image, the image becomes darker (as published).

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.full((1, 1, 48, 48), 0.5), torch.Generator().manual_seed(0)
        >>> changed = MotionBlur()(x, None, strength=1.0, victim=None, generator=generator)
        >>> f"{(changed - x).abs().max():.3f}"
        '0.000'
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return uniform numbers (N,), which choose the direction."""
        return (uniform((len(x_NCHW),), generator),)

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images in motion."""
        radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
        return filters.motion_blur(x_NCHW, radius, sigma, 90 * fields[0] - 45)


ZOOMS = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))


@attrs.frozen(kw_only=True)
class ZoomBlur(Stepped):
    """Average the image with enlargements of its centre, as while the camera moves forward.

    The enlargements are 1 to 1.11 in steps of 0.01, to 1.15 in steps of 0.01, to 1.2 and 1.24 in
    steps of 0.02, and to 1.3 in steps of 0.03 at severities 1 to 5; between them the images are
    mixed.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x = torch.full((1, 1, 32, 32), 0.5)
        >>> changed = ZoomBlur()(x, None, strength=1.0, victim=None, generator=None)
        >>> f"{(changed - x).abs().max():.3f}"
        '0.000'
    """

    budget: float = severity_budget()

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images blurred from their centres."""
        end, step = ZOOMS[severity - 1]
        height, width = x_NCHW.shape[2:]
        factors = np.arange(1, end, step)  # its rounding decides about a factor and about a pixel
        out = x_NCHW.clone()
        for factor in factors:
            layer = filters.zoomed(x_NCHW, float(factor))[:, :, :height, :width]
            out[:, :, : layer.shape[2], : layer.shape[3]] += layer
        return out / (len(factors) + 1)
