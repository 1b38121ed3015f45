"""Changes of colour: `brightness`, `contrast`, `saturation` and `hue`.

The pure functions equal torchvision's ``adjust_*`` with one change per image, and are
differentiable in the change. A change of 0 is the exact identity.
"""

from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from curricula.interfaces import PerturbationKind, Strength, Victim, strength_per_image
from curricula.perturbations.parametric import Parametric, lattice
from curricula.perturbations.validators import between

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue in grey (ITU-R BT.601)
MAX_CHANGE = 1e3  # largest change of a factor; far beyond any use
MAX_ASCENT = 1000  # gradient steps


def grey(x_NCHW: Tensor) -> Tensor:
    """Return the luminance (N, 1, H, W) of images with three channels; return images with one
    channel unchanged."""
    if x_NCHW.shape[1] == 1:
        return x_NCHW
    red, green, blue = x_NCHW[:, :1], x_NCHW[:, 1:2], x_NCHW[:, 2:]
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def brighten(x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
    """Return images NCHW with every pixel multiplied by 1 + change, clipped to [0, 1]."""
    return (x_NCHW + change_N111 * x_NCHW).clamp(0, 1)


def contrasted(x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
    """Return images NCHW with every pixel's distance from its image's mean grey multiplied by 1 +
    change, clipped to [0, 1]."""
    mean = grey(x_NCHW).mean(dim=(1, 2, 3), keepdim=True)
    return (x_NCHW + change_N111 * (x_NCHW - mean)).clamp(0, 1)


def saturated(x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
    """Return images NCHW with every pixel's distance from its own grey multiplied by 1 + change,
    clipped to [0, 1]."""
    return (x_NCHW + change_N111 * (x_NCHW - grey(x_NCHW))).clamp(0, 1)


def hue_turned(x_NCHW: Tensor, turns_N111: Tensor) -> Tensor:
    """Return images NCHW with every pixel's hue turned by ``turns`` of the colour circle, from red
    towards green, at the same saturation and value (HSV)."""
    red, green, blue = x_NCHW[:, :1], x_NCHW[:, 1:2], x_NCHW[:, 2:]
    value, least = x_NCHW.amax(1, keepdim=True), x_NCHW.amin(1, keepdim=True)
    chroma = value - least
    divisor = torch.where(chroma > 0, chroma, 1)
    # The hue in sixths of a turn: red 0, green 2, blue 4.
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    # A channel is lowest within a sixth of a turn of its opposite hue, and highest two sixths on.
    opposite = 5 - 2 * torch.arange(3, device=x_NCHW.device)[:, None, None]
    away = (hue + 6 * turns_N111 + opposite) % 6
    turned = value - chroma * torch.minimum(away, 4 - away).clamp(0, 1)
    # To HSV and back is not exact: a turn of 0 returns the image itself, with the same derivative.
    unturned = x_NCHW + (turned - turned.detach())
    return torch.where(turns_N111 == 0, unturned, turned).clamp(0, 1)


def worst_parameters(
    x_NCHW: Tensor,
    y_N: Tensor,
    start_NP: Tensor,
    low_N1: Tensor,
    high_N1: Tensor,
    *,
    apply: Callable[[Tensor, Tensor], Tensor],
    victim: Victim,
    steps: int,
) -> Tensor:
    """Return the parameters (N, P) of highest loss that projected gradient steps on the victim's
    own loss have visited.

    Each step follows the gradient's sign and is 2.5 / steps of half the range long (the step of
    Madry et al. 2018, in the parameters). The victim gives the gradient in the image; ``apply``
    pulls it back to the parameters.

    Args:
        x_NCHW: the images.
        y_N: their labels.
        start_NP: starting points.
        low_N1, high_N1: the range of each image's parameters.
        apply: from images and parameters to images; differentiable in the parameters.
        victim: the model whose loss is ascended.
        steps: number of steps, 1 or more.

    Returns:
        Each image's visited parameters of highest loss; the start counts as visited.
    """
    step_N1 = (high_N1 - low_N1) * (1.25 / steps)
    parameters, best = start_NP, start_NP
    highest_N = x_NCHW.new_full((len(x_NCHW),), -torch.inf)
    for number in range(steps + 1):
        with torch.enable_grad():
            free = parameters.detach().requires_grad_()
            changed = apply(x_NCHW, free)
        gradient_NCHW, loss_N, _ = victim.gradient(changed, y_N)
        best = torch.where((loss_N > highest_N)[:, None], parameters, best)
        highest_N = torch.maximum(highest_N, loss_N)
        if number < steps:
            (slope,) = torch.autograd.grad(changed, free, grad_outputs=gradient_NCHW)
            parameters = (parameters + step_N1 * slope.sign()).clamp(low_N1, high_N1)
    return best


class Adjustment(Parametric):
    """Base of the changes of colour by one number per image, random or found by gradient ascent.

    ``lowest`` is the smallest change at any budget.
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    lowest: ClassVar[float] = -1.0

    budget: float
    ascent: int

    @property
    def passes(self) -> int:
        """Number of passes per image: one for the starting point and one for each step of the
        ascent."""
        return self.ascent + 1 if self.ascent else 0

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """Return images NCHW in [0, 1], each adjusted by its change (N, 1, 1, 1)."""
        raise NotImplementedError

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return images NCHW in [0, 1], adjusted by changes (N, 1); differentiable in both."""
        return self.change(x_NCHW, parameters_NP.to(x_NCHW)[:, :, None, None])

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random changes (n, 1), uniform from the larger of -budget times the strength and
        `lowest` to budget times the strength."""
        drawn = torch.rand((n, 1), generator=generator, device=generator.device)
        low, high = self._range(strength, drawn)
        return low + drawn * (high - low)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return evenly spaced changes within +-budget times the strength, those below `lowest`
        raised to it: (points, 1), or (points, N, 1) for strengths (N,)."""
        return lattice(1, self.budget, strength, points).clamp_min(self.lowest)

    def _range(self, strength: Strength, like_N1: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest change allowed for each image at its strength, both (N,
        1)."""
        high = torch.ones_like(like_N1) * (strength_per_image(strength, like_N1) * self.budget)
        return (-high).clamp_min(self.lowest), high

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strength: Strength,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        with torch.no_grad():
            parameters = self.sample(len(x_NCHW), strength, generator)
            if self.ascent:
                low, high = self._range(strength, parameters)
                parameters = worst_parameters(
                    x_NCHW,
                    y_N,
                    parameters,
                    low,
                    high,
                    apply=self.apply,
                    victim=victim,
                    steps=self.ascent,
                )
            return self.apply(x_NCHW, parameters)


@attrs.frozen(kw_only=True)
class Brightness(Adjustment):
    """Multiply every pixel of an image by a random factor, and clip to [0, 1] (torchvision's
    ``adjust_brightness``).

    The factor is uniform in [max(0, 1 - budget), 1 + budget], with budget times the strength. The
    parameter is the factor minus 1.

    Args:
        budget: the largest change of the factor, as a share, from 0 to 1000; 0.4 by default.
        ascent: steps of gradient ascent from the random factor towards the one that is worst for
            the model, from 0 (the random one is used) to 1000; 0 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        A change of -0.5 halves every pixel, one of 1 doubles it:

        >>> x = torch.tensor([0.2, 0.4, 0.6]).expand(2, 1, 1, 3)
        >>> Brightness().apply(x, torch.tensor([[-0.5], [1.0]])).squeeze()
        tensor([[0.1000, 0.2000, 0.3000],
                [0.4000, 0.8000, 1.0000]])
    """

    unit: ClassVar[str] = "share"

    budget: float = attrs.field(default=0.4, validator=between(0.0, MAX_CHANGE))
    ascent: int = attrs.field(default=0, validator=between(0, MAX_ASCENT))

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """Return images NCHW with their brightness multiplied by 1 + change, clipped to [0, 1]."""
        return brighten(x_NCHW, change_N111)


@attrs.frozen(kw_only=True)
class Contrast(Adjustment):
    """Multiply the distance of every pixel from the image's mean grey by a random factor, and clip
    to [0, 1] (torchvision's ``adjust_contrast``).

    The factor is uniform in [max(0, 1 - budget), 1 + budget], with budget times the strength. The
    parameter is the factor minus 1. For images of one channel or three.

    Args:
        budget: the largest change of the factor, as a share, from 0 to 1000; 0.4 by default.
        ascent: steps of gradient ascent from the random factor towards the one that is worst for
            the model, from 0 (the random one is used) to 1000; 0 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        A change of -1 leaves the mean grey, one of 1 doubles the distances from it:

        >>> x = torch.tensor([0.2, 0.4, 0.6]).expand(2, 1, 1, 3)
        >>> Contrast().apply(x, torch.tensor([[-1.0], [1.0]])).squeeze()
        tensor([[0.4000, 0.4000, 0.4000],
                [0.0000, 0.4000, 0.8000]])
    """

    unit: ClassVar[str] = "share"
    channels: ClassVar[frozenset[int] | None] = frozenset({1, 3})

    budget: float = attrs.field(default=0.4, validator=between(0.0, MAX_CHANGE))
    ascent: int = attrs.field(default=0, validator=between(0, MAX_ASCENT))

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """Return images NCHW with their contrast multiplied by 1 + change, clipped to [0, 1]."""
        return contrasted(x_NCHW, change_N111)


@attrs.frozen(kw_only=True)
class Saturation(Adjustment):
    """Multiply the distance of every pixel from its own grey by a random factor, and clip to [0, 1]
    (torchvision's ``adjust_saturation``).

    The factor is uniform in [max(0, 1 - budget), 1 + budget], with budget times the strength. The
    parameter is the factor minus 1. For images of three channels.

    Args:
        budget: the largest change of the factor, as a share, from 0 to 1000; 0.4 by default.
        ascent: steps of gradient ascent from the random factor towards the one that is worst for
            the model, from 0 (the random one is used) to 1000; 0 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        A change of -1 leaves grey pixels:

        >>> x = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
        >>> Saturation().apply(x, torch.tensor([[-1.0]])).flatten()
        tensor([0.2989, 0.2989, 0.2989])
    """

    unit: ClassVar[str] = "share"
    channels: ClassVar[frozenset[int] | None] = frozenset({3})

    budget: float = attrs.field(default=0.4, validator=between(0.0, MAX_CHANGE))
    ascent: int = attrs.field(default=0, validator=between(0, MAX_ASCENT))

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """Return images NCHW with their saturation multiplied by 1 + change, clipped to [0, 1]."""
        return saturated(x_NCHW, change_N111)


@attrs.frozen(kw_only=True)
class Hue(Adjustment):
    """Turn the hue of every pixel of an image by a random angle (torchvision's ``adjust_hue``).

    The turn is uniform in [-budget, budget] times the strength; a third of a turn changes red to
    green. For images of three channels.

    Args:
        budget: the largest turn, in turns of the circle, from 0 to 0.5; 0.1 by default.
        ascent: steps of gradient ascent from the random turn towards the one that is worst for
            the model, from 0 (the random one is used) to 1000; 0 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        A third of a turn changes red to green:

        >>> x = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
        >>> Hue().apply(x, torch.tensor([[1 / 3]])).flatten()
        tensor([0., 1., 0.])
    """

    unit: ClassVar[str] = "turns"
    channels: ClassVar[frozenset[int] | None] = frozenset({3})

    budget: float = attrs.field(default=0.1, validator=between(0.0, 0.5))
    ascent: int = attrs.field(default=0, validator=between(0, MAX_ASCENT))

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """Return images NCHW with their hue turned by the change, in turns of the colour circle."""
        return hue_turned(x_NCHW, change_N111)
