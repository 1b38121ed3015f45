"""Weather: `snow`, `frost` and `fog`."""

import attrs
import torch
from torch import Tensor

from curricula_corruptions import filters, textures
from curricula_corruptions.corruption import (
    Corruption,
    Fields,
    Stepped,
    constant,
    gaussian,
    severity_budget,
    uniform,
)


def plasma(u_NMM: Tensor, decay_N: Tensor) -> Tensor:
    """Return fractal clouds (N, M, M) from 0 to 1, by the diamond-square algorithm.

    A point is the mean of its four neighbours of the coarser grid plus noise. The map is cyclic.

    Args:
        u_NMM: noise of every point, uniform in [-1, 1]; M is a power of two. That of the corner is
            unused.
        decay_N: by how much the noise's amplitude is divided from one grid to the next finer; the
            noise itself grows with the square of the amplitude.
    """
    side = u_NMM.shape[1]
    out = torch.zeros_like(u_NMM)
    amplitude_N11 = torch.full_like(decay_N, 100.0)[:, None, None]
    step = side
    while step >= 2:
        half = step // 2
        noise = u_NMM * amplitude_N11**2
        corner = out[:, ::step, ::step]
        pairs = corner + corner.roll(-1, 1)
        centre = (pairs + pairs.roll(-1, 2)) / 4 + noise[:, half::step, half::step]
        out[:, half::step, half::step] = centre
        across = centre + centre.roll(1, 1) + corner + corner.roll(-1, 2)
        out[:, ::step, half::step] = across / 4 + noise[:, ::step, half::step]
        down = centre + centre.roll(1, 2) + corner + corner.roll(-1, 1)
        out[:, half::step, ::step] = down / 4 + noise[:, half::step, ::step]
        step = half
        amplitude_N11 = amplitude_N11 / decay_N[:, None, None]
    out = out - out.amin((1, 2), keepdim=True)
    return out / out.amax((1, 2), keepdim=True).clamp_min(1e-12)


@attrs.frozen(kw_only=True)
class Fog(Corruption):
    """Add fractal clouds, and scale the image back to its brightest value.

    Height and roughness of the clouds are (1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5) and (3, 1.4) at
    severities 1 to 5, linear between.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        The contrast of an edge falls to 1 / (1 + 3):

        >>> x, generator = torch.zeros(1, 1, 32, 32), torch.Generator().manual_seed(0)
        >>> white = x + 1.0
        >>> fields = Fog().fields(x, generator)
        >>> severity = torch.tensor([5.0])
        >>> x[..., :16] = 1.0
        >>> difference = Fog().corrupted(white, severity, fields) - Fog().corrupted(
        ...     x, severity, fields
        ... )
        >>> difference.amax((0, 1, 2))[[0, 31]]
        tensor([0.0000, 0.2500])
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return the noise (N, M, M) of the clouds, where M is a power of two."""
        side = 1 << (max(x_NCHW.shape[1:]) - 1).bit_length()
        return (2 * uniform((len(x_NCHW), side, side), generator) - 1,)

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images in fog."""
        height, width = x_NCHW.shape[2:]
        decay = constant(severity_N, (2, 2, 2, 1.7, 1.5, 1.4)).flatten()
        depth = constant(severity_N, (0, 1.5, 2, 2.5, 2.5, 3))
        clouds = plasma(fields[0], decay)[:, None, :height, :width]
        brightest = x_NCHW.amax((1, 2, 3), keepdim=True)
        return (x_NCHW + depth * clouds) * (brightest / (brightest + depth))


@attrs.frozen(kw_only=True)
class Frost(Corruption):
    """Add a random part of a texture of ice to the darkened image.

    The weights of image and texture are (1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7) and
    (0.6, 0.75) at severities 1 to 5, linear between. No photographs of frost are included: by
    default the textures are computed. Accuracies depend on the textures.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.
        textures: ``computed``; ``imagecorruptions``, the photographs of that package, which must be
            installed; or a folder of images, in quotes.

    Raises:
        ValueError: a value out of range.
        UserError: there are no such textures.

    Example:
        >>> x, generator = torch.zeros(1, 3, 32, 32), torch.Generator().manual_seed(0)
        >>> changed = Frost()(x, None, strength=1.0, victim=None, generator=generator)
        >>> bool(changed.mean() > 0.2)
        True
    """

    budget: float = severity_budget()
    textures: str = attrs.field(default=textures.COMPUTED, validator=textures.check)

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return uniform numbers (N, 3), which choose the texture, and the row and column of its
        part."""
        return (uniform((len(x_NCHW), 3), generator),)

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images behind ice."""
        if x_NCHW.shape[1] == 1:
            return filters.as_colour(self.corrupted, x_NCHW, severity_N, fields)
        height, width = x_NCHW.shape[2:]
        ice = textures.fitted(self.textures, height, width, x_NCHW.device)
        number_N = (fields[0][:, 0] * len(ice.sizes_T2)).long()
        size_N2, first_N = ice.sizes_T2[number_N], ice.first_T[number_N]
        room_N2 = size_N2 - size_N2.new_tensor([height, width])
        place_N2 = (fields[0][:, 1:] * room_N2).floor().long()
        rows_NH = place_N2[:, :1] + torch.arange(height, device=x_NCHW.device)
        columns_NW = place_N2[:, 1:] + torch.arange(width, device=x_NCHW.device)
        index_NHW = (
            first_N[:, None, None]
            + rows_NH[:, :, None] * size_N2[:, 1, None, None]
            + columns_NW[:, None]
        )
        part_NCHW = ice.pixels[:, index_NHW].movedim(0, 1)
        kept = constant(severity_N, (1, 1, 0.8, 0.7, 0.65, 0.6))
        return kept * x_NCHW + constant(severity_N, (0, 0.4, 0.6, 0.7, 0.7, 0.75)) * part_NCHW


SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
"""By severity: mean, deviation, size and least value of a flake; radius and deviation of its blur;
weight of the image."""


@attrs.frozen(kw_only=True)
class Snow(Stepped):
    """Whiten the image, and add flakes, blurred along a random direction, and the same flakes
    turned by 180 degrees.

    The flakes are what exceeds a threshold of white noise, enlarged 3, 2, 4, 4.5 and 2.5 times at
    severities 1 to 5; between them the images are mixed.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.zeros(1, 3, 32, 32), torch.Generator().manual_seed(0)
        >>> changed = Snow()(x, None, strength=1.0, victim=None, generator=generator)
        >>> torch.equal(changed, changed.flip(2, 3)), f"{changed.min():.3f}"
        (True, '0.225')
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return standard normal numbers (N, 1, H, W) of the flakes, and uniform ones (N,), which
        choose the direction."""
        n, _, height, width = x_NCHW.shape
        return gaussian((n, 1, height, width), generator), uniform((n,), generator)

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images in snow."""
        mean, deviation, size, least, radius, sigma, weight = SNOW[severity - 1]
        height, width = x_NCHW.shape[2:]
        flakes = filters.zoomed(mean + deviation * fields[0], size)
        flakes = torch.where(flakes < least, 0, flakes).clamp(0, 1)
        flakes = filters.motion_blur(flakes, int(radius), sigma, 90 * fields[1] - 135)
        flakes = (flakes * 255).round()[:, :, :height, :width] / 255
        white = torch.maximum(x_NCHW, filters.luminance(x_NCHW) * 1.5 + 0.5)
        return weight * x_NCHW + (1 - weight) * white + (flakes + flakes.flip(2, 3))
