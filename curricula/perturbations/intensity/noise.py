"""Random changes of the pixels: `gaussian`, `uniform` and `cutout`."""

from typing import ClassVar

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from curricula.interfaces import NormBound, PerturbationKind, Strength, Victim
from curricula.perturbations.attacks.norm_ball import a_budget, radii
from curricula.perturbations.parametric import Parametric, combinations, evenly


@attrs.frozen(kw_only=True)
class GaussianNoise:
    """`gaussian`: white Gaussian noise, independent in every pixel and channel, then cut to
    [0, 1].

    Args:
        budget: the standard deviation at full strength, in [0, 1] pixel units, from 0 to 1e6; 0.1
            by default.
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    unit: ClassVar[str] = "sigma"
    norm_bound: ClassVar[NormBound | None] = None
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(default=0.1, validator=a_budget)

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
        return (x_NCHW.detach() + eps_N111 * noise).clamp_(0, 1)


@attrs.frozen(kw_only=True)
class UniformNoise:
    """`uniform`: noise uniform in the l-inf ball, independent in every pixel and channel, then
    cut to [0, 1].

    Args:
        budget: radius of the ball at full strength, in [0, 1] pixel units, from 0 to 1e6.
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    unit: ClassVar[str] = "linf"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=a_budget)

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
        return (x_NCHW.detach() + eps_N111 * noise).clamp_(0, 1)


def cut_out(x_NCHW: Tensor, holes_N3: Tensor, fill: float) -> Tensor:
    """The images with a square filled in.

    Args:
        x_NCHW: images.
        holes_N3: the centre's row and column as shares of the height and width, and the square's
            side as a share of the shorter side.
        fill: its value.
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
    """`cutout`: a square of the image filled in (DeVries and Taylor 2017, section 3.1).

    Its side is budget times the strength, as a share of the image's shorter side. Its centre is
    uniform over the image, so it may hang over the edge; a pixel is filled if its middle is in
    the square.

    Args:
        budget: the square's side, as a share of the image's, from 0 to 2; 0.5 by default.
        fill: the value put there, from 0 to 1; 0 by default.
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    unit: ClassVar[str] = "share"

    budget: float = attrs.field(default=0.5, validator=and_(ge(0.0), le(2.0)))
    fill: float = attrs.field(default=0.0, validator=and_(ge(0.0), le(1.0)))

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """(n, 3): the centre's row and column and the side, as shares of the image's."""
        centre = torch.rand((n, 2), generator=generator, device=generator.device)
        if isinstance(strength, Tensor):
            strength = strength.to(centre)[:, None]
        side = torch.ones_like(centre[:, :1]) * (strength * self.budget)
        return torch.cat((centre, side), dim=1)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """No square, and ``points`` x ``points`` centres, evenly over the image."""
        centres = combinations(evenly(0.0, 1.0, points), 2, 1.0)
        holes = torch.cat((centres, torch.full_like(centres[:, :1], self.budget)), dim=1)
        holes = torch.cat((torch.zeros(1, 3), holes))
        if isinstance(strength, Tensor):
            holes = holes.to(strength.device)[:, None].repeat(1, len(strength), 1)
            return torch.cat((holes[..., :2], holes[..., 2:] * strength[:, None]), dim=-1)
        return torch.cat((holes[:, :2], holes[:, 2:] * strength), dim=1)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images with squares (n, 3) filled in."""
        return cut_out(x_NCHW, parameters_NP, self.fill)
