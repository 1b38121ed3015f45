"""Noise: `gaussian-noise`, `shot-noise`, `impulse-noise` and `speckle-noise`."""

import math

import attrs
import torch
from torch import Tensor

from curricula_corruptions.corruption import (
    Corruption,
    Fields,
    Stepped,
    constant,
    gaussian,
    severity_budget,
    uniform,
)


@attrs.frozen(kw_only=True)
class GaussianNoise(Corruption):
    """Add white Gaussian noise, independent in every pixel and channel, and clip to [0, 1].

    The standard deviation is 0.08, 0.12, 0.18, 0.26 and 0.38 at severities 1 to 5, linear between.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.full((1, 1, 64, 64), 0.5), torch.Generator().manual_seed(0)
        >>> noisy = GaussianNoise()(x, None, strength=0.2, victim=None, generator=generator)
        >>> f"{noisy.std():.2f}"
        '0.08'
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return standard normal numbers NCHW."""
        return (gaussian(x_NCHW.shape, generator),)

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images plus noise."""
        return x_NCHW + constant(severity_N, (0, 0.08, 0.12, 0.18, 0.26, 0.38)) * fields[0]


@attrs.frozen(kw_only=True)
class SpeckleNoise(Corruption):
    """Add Gaussian noise in proportion to each pixel's value, and clip to [0, 1].

    The standard deviation is 0.15, 0.2, 0.35, 0.45 and 0.6 of the value at severities 1 to 5,
    linear between.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        Black pixels stay black:

        >>> x, generator = torch.zeros(1, 1, 2, 2), torch.Generator().manual_seed(0)
        >>> SpeckleNoise()(x, None, strength=1.0, victim=None, generator=generator).max()
        tensor(0.)
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return standard normal numbers NCHW."""
        return (gaussian(x_NCHW.shape, generator),)

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images plus noise in proportion to them."""
        return x_NCHW + x_NCHW * constant(severity_N, (0, 0.15, 0.2, 0.35, 0.45, 0.6)) * fields[0]


@attrs.frozen(kw_only=True)
class ImpulseNoise(Corruption):
    """Make random values black or white, independent in every pixel and channel.

    The share of changed values is 0.03, 0.06, 0.09, 0.17 and 0.27 at severities 1 to 5, linear
    between; one half of them become white. A value that is changed stays changed as the strength
    grows.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.full((1, 1, 64, 64), 0.5), torch.Generator().manual_seed(0)
        >>> changed = ImpulseNoise()(x, None, strength=1.0, victim=None, generator=generator)
        >>> f"{(changed != 0.5).float().mean():.2f}", changed.unique().tolist()
        ('0.27', [0.0, 0.5, 1.0])
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return uniform numbers NCHW for what is changed, and for salt or pepper."""
        return uniform(x_NCHW.shape, generator), uniform(x_NCHW.shape, generator)

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images with some of their values black or white."""
        changed, colour = fields
        share = constant(severity_N, (0, 0.03, 0.06, 0.09, 0.17, 0.27))
        return torch.where(changed < share, (colour < 0.5).to(x_NCHW), x_NCHW)


def poisson(rate: Tensor, u: Tensor, highest: float) -> Tensor:
    """Return Poisson numbers, the quantiles of their distributions at uniform numbers ``u``.

    ``torch.poisson`` is not used: its numbers would depend on the rest of the batch.

    Args:
        rate: expected values.
        u: uniform numbers in [0, 1), with the shape of ``rate``.
        highest: a number of which no rate is larger.

    >>> poisson(torch.tensor([2.0, 2.0]), torch.tensor([0.1, 0.5]), 2.0)
    tensor([0., 2.])
    """
    probability = torch.exp(-rate)
    cumulative = probability.clone()
    count = torch.zeros_like(rate)
    # Larger numbers are rarer than the smallest probability that a float32 u resolves.
    for number in range(1, int(highest + 6 * math.sqrt(highest)) + 9):
        count += u >= cumulative
        probability *= rate / number
        cumulative += probability
    return count


@attrs.frozen(kw_only=True)
class ShotNoise(Stepped):
    """Replace every value by a Poisson number of photons, as in the dark.

    White means 60, 25, 12, 5 and 3 photons at severities 1 to 5; between them the images are
    mixed.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.full((1, 1, 64, 64), 0.5), torch.Generator().manual_seed(0)
        >>> noisy = ShotNoise()(x, None, strength=1.0, victim=None, generator=generator)
        >>> (3 * noisy).unique()
        tensor([0., 1., 2., 3.])
    """

    budget: float = severity_budget()

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return uniform numbers NCHW, which choose the quantile of each photon number."""
        return (uniform(x_NCHW.shape, generator),)

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images of few photons."""
        photons = (60.0, 25.0, 12.0, 5.0, 3.0)[severity - 1]
        return poisson(x_NCHW * photons, fields[0], photons) / photons
