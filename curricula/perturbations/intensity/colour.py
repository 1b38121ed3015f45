"""Changes of colour: `brightness`, `contrast`, `saturation` and `hue`.

The pure functions give what torchvision's ``adjust_*`` give, image by image, and are
differentiable in the change. A change of 0 is the exact identity.
"""

from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from curricula.interfaces import PerturbationKind, Strength, Victim
from curricula.perturbations.parametric import Parametric, lattice

LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey (ITU-R BT.601)
LARGEST = 1e3  # far beyond any use
MOST_STEPS = 1000


def grey(x_NCHW: Tensor) -> Tensor:
    """The luminance (N, 1, H, W) of red, green and blue; of one channel, itself."""
    if x_NCHW.shape[1] == 1:
        return x_NCHW
    red, green, blue = x_NCHW[:, :1], x_NCHW[:, 1:2], x_NCHW[:, 2:]
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def brighten(x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
    """Every pixel times 1 + change, cut to [0, 1]."""
    return (x_NCHW + change_N111 * x_NCHW).clamp(0, 1)


def contrasted(x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
    """The distance of every pixel from the image's mean grey times 1 + change, cut to [0, 1]."""
    mean = grey(x_NCHW).mean(dim=(1, 2, 3), keepdim=True)
    return (x_NCHW + change_N111 * (x_NCHW - mean)).clamp(0, 1)


def saturated(x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
    """The distance of every pixel from its own grey times 1 + change, cut to [0, 1]."""
    return (x_NCHW + change_N111 * (x_NCHW - grey(x_NCHW))).clamp(0, 1)


def hue_turned(x_NCHW: Tensor, turns_N111: Tensor) -> Tensor:
    """Every pixel at another hue of the same saturation and value (HSV), ``turns`` of the colour
    circle further, from red towards green."""
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
    # A channel is at its least within a sixth of its opposite, and at the value two sixths on.
    opposite = 5 - 2 * torch.arange(3, device=x_NCHW.device)[:, None, None]
    away = (hue + 6 * turns_N111 + opposite) % 6
    turned = value - chroma * torch.minimum(away, 4 - away).clamp(0, 1)
    # There and back is not exact: no turn is the image itself, but for the derivative.
    still = x_NCHW + (turned - turned.detach())
    return torch.where(turns_N111 == 0, still, turned).clamp(0, 1)


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
    """Projected gradient ascent of the victim's own loss, over the parameters of a change.

    Each step is along the gradient's sign, 2.5 / steps of half the range long (the step of Madry
    et al. 2018, in the parameters). The gradient in the image is the victim's; ``apply`` pulls it
    back.

    Args:
        x_NCHW: the images.
        y_N: their labels.
        start_NP: where the ascent starts.
        low_N1, high_N1: the range of an image's parameters.
        apply: from images and parameters to images; differentiable in the parameters.
        victim: whose loss is ascended.
        steps: how many, 1 or more.

    Returns:
        Of each image the parameters of highest loss met, the start among them.
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
    """What changes of colour share: one number an image, drawn or ascended.

    ``lowest`` is how far down the number can go whatever the budget.
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    lowest: ClassVar[float] = -1.0

    budget: float
    ascent: int

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """The images under given changes."""
        raise NotImplementedError

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images under changes (n, 1); differentiable in both."""
        return self.change(x_NCHW, parameters_NP.to(x_NCHW)[:, :, None, None])

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Changes (n, 1)."""
        drawn = torch.rand((n, 1), generator=generator, device=generator.device)
        low, high = self._range(strength, drawn)
        return low + drawn * (high - low)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """``points`` changes, evenly from -budget to budget, none below the lowest there is."""
        return lattice(1, self.budget, strength, points).clamp_min(self.lowest)

    def _range(self, strength: Strength, like_N1: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest change of each image, both (N, 1)."""
        if isinstance(strength, Tensor):
            strength = strength.to(like_N1)[:, None]
        high = torch.ones_like(like_N1) * (strength * self.budget)
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
    """`brightness`: every pixel times a factor, cut to [0, 1] (torchvision's
    ``adjust_brightness``).

    The factor is uniform in [max(0, 1 - budget), 1 + budget], with budget times the strength. The
    parameter is the factor less 1.

    Args:
        budget: the largest change of the factor, as a share, from 0 to 1000; 0.4 by default.
        ascent: steps of gradient ascent from the random factor towards the one that is worst for
            the model, from 0 (the random one stands) to 1000; 0 by default.
    """

    unit: ClassVar[str] = "share"

    budget: float = attrs.field(default=0.4, validator=and_(ge(0.0), le(LARGEST)))
    ascent: int = attrs.field(default=0, validator=and_(ge(0), le(MOST_STEPS)))

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """The images at other brightnesses."""
        return brighten(x_NCHW, change_N111)


@attrs.frozen(kw_only=True)
class Contrast(Adjustment):
    """`contrast`: the distance from the image's mean grey times a factor, cut to [0, 1]
    (torchvision's ``adjust_contrast``).

    The factor is uniform in [max(0, 1 - budget), 1 + budget], with budget times the strength. The
    parameter is the factor less 1. Images of one channel or of three.

    Args:
        budget: the largest change of the factor, as a share, from 0 to 1000; 0.4 by default.
        ascent: steps of gradient ascent from the random factor towards the one that is worst for
            the model, from 0 (the random one stands) to 1000; 0 by default.
    """

    unit: ClassVar[str] = "share"
    channels: ClassVar[frozenset[int] | None] = frozenset({1, 3})

    budget: float = attrs.field(default=0.4, validator=and_(ge(0.0), le(LARGEST)))
    ascent: int = attrs.field(default=0, validator=and_(ge(0), le(MOST_STEPS)))

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """The images at other contrasts."""
        return contrasted(x_NCHW, change_N111)


@attrs.frozen(kw_only=True)
class Saturation(Adjustment):
    """`saturation`: the distance of each pixel from its grey times a factor, cut to [0, 1]
    (torchvision's ``adjust_saturation``).

    The factor is uniform in [max(0, 1 - budget), 1 + budget], with budget times the strength. The
    parameter is the factor less 1. Images of three channels.

    Args:
        budget: the largest change of the factor, as a share, from 0 to 1000; 0.4 by default.
        ascent: steps of gradient ascent from the random factor towards the one that is worst for
            the model, from 0 (the random one stands) to 1000; 0 by default.
    """

    unit: ClassVar[str] = "share"
    channels: ClassVar[frozenset[int] | None] = frozenset({3})

    budget: float = attrs.field(default=0.4, validator=and_(ge(0.0), le(LARGEST)))
    ascent: int = attrs.field(default=0, validator=and_(ge(0), le(MOST_STEPS)))

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """The images at other saturations."""
        return saturated(x_NCHW, change_N111)


@attrs.frozen(kw_only=True)
class Hue(Adjustment):
    """`hue`: every pixel's hue turned about the colour circle (torchvision's ``adjust_hue``).

    The turn is uniform in [-budget, budget] times the strength; a third of a turn makes red
    green. Images of three channels.

    Args:
        budget: the largest turn, in turns of the circle, from 0 to 0.5; 0.1 by default.
        ascent: steps of gradient ascent from the random turn towards the one that is worst for
            the model, from 0 (the random one stands) to 1000; 0 by default.
    """

    unit: ClassVar[str] = "turns"
    channels: ClassVar[frozenset[int] | None] = frozenset({3})

    budget: float = attrs.field(default=0.1, validator=and_(ge(0.0), le(0.5)))
    ascent: int = attrs.field(default=0, validator=and_(ge(0), le(MOST_STEPS)))

    def change(self, x_NCHW: Tensor, change_N111: Tensor) -> Tensor:
        """The images at other hues."""
        return hue_turned(x_NCHW, change_N111)
