"""Random changes of the pixels: `gaussian`, `uniform` and `cutout`."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from curricula.interfaces import (
    NormBound,
    PerturbationKind,
    Strength,
    Victim,
    strength_per_image,
)
from curricula.perturbations.attacks.norm_ball import radii
from curricula.perturbations.parametric import Parametric, combinations, evenly
from curricula.perturbations.validators import between, valid_budget


@attrs.frozen(kw_only=True)
class GaussianNoise:
    """Add white Gaussian noise, independent in every pixel and channel, and clip to [0, 1].

    Args:
        budget: the standard deviation at full strength, in [0, 1] pixel units, from 0 to 1e6; 0.1
            by default.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.full((1, 1, 64, 64), 0.5), torch.Generator().manual_seed(0)
        >>> noisy = GaussianNoise(budget=0.1)(
        ...     x, None, strength=0.5, victim=None, generator=generator
        ... )
        >>> f"{noisy.std():.2f}"
        '0.05'
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    unit: ClassVar[str] = "sigma"
    norm_bound: ClassVar[NormBound | None] = None
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(default=0.1, validator=valid_budget)

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strength: Strength,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        noise = torch.randn(x_NCHW.shape, generator=generator, device=x_NCHW.device)
        eps_N111 = radii(strength, self.budget, x_NCHW)
        return (x_NCHW + eps_N111 * noise).clamp_(0, 1)


@attrs.frozen(kw_only=True)
class UniformNoise:
    """Add noise uniform in the l-inf ball, independent in every pixel and channel, and clip to
    [0, 1].

    Args:
        budget: radius of the ball at full strength, in [0, 1] pixel units, from 0 to 1.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x, generator = torch.full((1, 1, 64, 64), 0.5), torch.Generator().manual_seed(0)
        >>> noisy = UniformNoise(budget=0.1)(
        ...     x, None, strength=0.5, victim=None, generator=generator
        ... )
        >>> f"{(noisy - x).abs().max():.2f}"
        '0.05'
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    unit: ClassVar[str] = "linf"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=valid_budget)

    @property
    def norm_bound(self) -> NormBound:
        return NormBound(norm="linf", radius=self.budget)

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strength: Strength,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        noise = torch.rand(x_NCHW.shape, generator=generator, device=x_NCHW.device) * 2 - 1
        eps_N111 = radii(strength, self.budget, x_NCHW)
        return (x_NCHW + eps_N111 * noise).clamp_(0, 1)


def cut_out(x_NCHW: Tensor, holes_N3: Tensor, fill: float) -> Tensor:
    """Return images NCHW, each with one square filled with a constant.

    Args:
        x_NCHW: images.
        holes_N3: the centre's row and column as shares of the height and width, and the square's
            side as a share of the shorter side.
        fill: the value of the square's pixels, in [0, 1].
    """
    height, width = x_NCHW.shape[2:]
    row, column, side = holes_N3.to(x_NCHW)[:, :, None].unbind(1)
    half = side * (min(height, width) / 2)
    rows = torch.arange(height, device=x_NCHW.device) + 0.5
    columns = torch.arange(width, device=x_NCHW.device) + 0.5
    in_rows = (rows - row * height).abs() < half
    in_columns = (columns - column * width).abs() < half
    return x_NCHW.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], fill)


@attrs.frozen(kw_only=True)
class Cutout(Parametric):
    """Fill a square at a random place of each image (DeVries and Taylor 2017, section 3.1).

    The side of the square is budget times the strength, as a share of the image's shorter side.
    Its centre is uniform over the image, so it may extend over the edge; a pixel is filled if its
    middle lies in the square.

    Args:
        budget: the square's side, as a share of the image's shorter side, from 0 to 2; 0.5 by
            default.
        fill: the value of the square's pixels, from 0 to 1; 0 by default.

    Raises:
        ValueError: a value out of range.

    Example:
        A square of half the side, about the centre:

        >>> Cutout().apply(torch.ones(1, 1, 4, 4), torch.tensor([[0.5, 0.5, 0.5]])).squeeze()
        tensor([[1., 1., 1., 1.],
                [1., 0., 0., 1.],
                [1., 0., 0., 1.],
                [1., 1., 1., 1.]])
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    unit: ClassVar[str] = "share"

    budget: float = attrs.field(default=0.5, validator=between(0.0, 2.0))
    fill: float = attrs.field(default=0.0, validator=between(0.0, 1.0))

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random squares (n, 3): row and column of the centre as shares of height and width,
        and the side as a share of the shorter side."""
        centre = torch.rand((n, 2), generator=generator, device=generator.device)
        strength = strength_per_image(strength, centre)
        side = torch.ones_like(centre[:, :1]) * (strength * self.budget)
        return torch.cat((centre, side), dim=1)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return parameters of an empty square, then of squares at ``points`` x ``points`` evenly
        spaced centres: (1 + points**2, 3), or (1 + points**2, N, 3) for strengths (N,)."""
        centres = combinations(evenly(0.0, 1.0, points), 2, 1.0)
        holes = torch.cat((centres, torch.full_like(centres[:, :1], self.budget)), dim=1)
        holes = torch.cat((torch.zeros(1, 3), holes))
        if isinstance(strength, Tensor):
            holes = holes.to(strength.device)[:, None].repeat(1, len(strength), 1)
            return torch.cat((holes[..., :2], holes[..., 2:] * strength[:, None]), dim=-1)
        return torch.cat((holes[:, :2], holes[:, 2:] * strength), dim=1)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return images NCHW with one square each filled in, by parameters (N, 3) as from
        `sample`."""
        return cut_out(x_NCHW, parameters_NP, self.fill)
