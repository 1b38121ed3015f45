"""Changes of colour: `brighten`, `low-contrast` and `saturate`."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from curricula_corruptions.corruption import Corruption, Fields, constant, severity_budget


@attrs.frozen(kw_only=True)
class Brighten(Corruption):
    """Raise the value of every pixel in HSV (its largest channel), at most to 1; the paper's
    *brightness*.

    It rises by 0.1, 0.2, 0.3, 0.4 and 0.5 at severities 1 to 5, linear between.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x = torch.tensor([0.4, 0.2, 0.0]).reshape(1, 3, 1, 1)
        >>> Brighten()(x, None, strength=0.8, victim=None, generator=None).flatten()
        tensor([0.8000, 0.4000, 0.0000])
    """

    budget: float = severity_budget()

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return brighter images."""
        value = x_NCHW.amax(1, keepdim=True)
        higher = (value + constant(severity_N, (0, 0.1, 0.2, 0.3, 0.4, 0.5))).clamp_max(1)
        # Hue and saturation stay if all channels grow by one factor; black becomes grey.
        return torch.where(value > 0, x_NCHW / value * higher, higher)


@attrs.frozen(kw_only=True)
class LowContrast(Corruption):
    """Move every pixel towards the mean of its channel; the paper's *contrast*.

    The distance from the mean is multiplied by 0.4, 0.3, 0.2, 0.1 and 0.05 at severities 1 to 5,
    linear between.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
        >>> LowContrast()(x, None, strength=0.2, victim=None, generator=None).flatten()
        tensor([0.3000, 0.7000])
    """

    budget: float = severity_budget()

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images of less contrast."""
        mean = x_NCHW.mean((2, 3), keepdim=True)
        return mean + (x_NCHW - mean) * constant(severity_N, (1, 0.4, 0.3, 0.2, 0.1, 0.05))


@attrs.frozen(kw_only=True)
class Saturate(Corruption):
    """Multiply the saturation of every pixel in HSV, and add to it.

    The factor is 0.3, 0.1, 2, 5 and 20 at severities 1 to 5, and 0.1 and 0.2 are added at
    severities 4 and 5, linear between. So colours fade up to severity 2, return, and grow: near
    severity 2.47 (strength 0.495) nothing changes. For images of three channels.

    Args:
        budget: the severity at strength 1, from 0 to 5; 5 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x = torch.tensor([0.8, 0.4, 0.4]).reshape(1, 3, 1, 1)
        >>> Saturate()(x, None, strength=0.6, victim=None, generator=None).flatten()
        tensor([0.8000, 0.0000, 0.0000])
    """

    channels: ClassVar[frozenset[int] | None] = frozenset({3})

    budget: float = severity_budget()

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images of a different saturation."""
        factor = constant(severity_N, (1, 0.3, 0.1, 2, 5, 20))
        added = constant(severity_N, (0, 0, 0, 0, 0.1, 0.2))
        value, least = x_NCHW.amax(1, keepdim=True), x_NCHW.amin(1, keepdim=True)
        saturation = torch.where(value > least, (value - least) / value, 0)
        wanted = (saturation * factor + added).clamp(0, 1)
        # At full saturation of the same hue; grey has the hue of red.
        red = x_NCHW.new_tensor([0.0, 1.0, 1.0])[:, None, None]
        lowered = torch.where(value > least, (value - x_NCHW) / (value - least), red)
        return value * (1 - wanted * lowered)
