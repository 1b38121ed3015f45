"""Affine changes of the image plane: the perturbations `rot` and `trans`."""

from typing import ClassVar

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from curricula.geometry import rotation_theta, translation_theta, warp
from curricula.interfaces import (
    Guarantee,
    Interpolation,
    Padding,
    PerturbationKind,
    Strength,
    Victim,
)


def uniform(
    n: int, columns: int, bound: float, strength: Strength, generator: torch.Generator
) -> Tensor:
    """(n, columns) drawn uniformly from [-bound, bound] times the strength of each row."""
    drawn = torch.rand((n, columns), generator=generator, device=generator.device) * 2 - 1
    if isinstance(strength, Tensor):
        strength = strength.to(drawn)[:, None]
    return drawn * (strength * bound)


class Affine:
    """What affine perturbations share: `__call__` follows from `sample` and `matrix`."""

    kind: ClassVar[PerturbationKind] = "spatial"
    guarantee: ClassVar[Guarantee | None] = None
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    interpolation: Interpolation
    padding: Padding

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Random parameters, one row an image."""
        raise NotImplementedError

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """theta_N23 of parameters."""
        raise NotImplementedError

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images changed by given parameters, one row each."""
        return warp(
            x_NCHW,
            self.matrix(parameters_NP),
            interpolation=self.interpolation,
            padding=self.padding,
        )

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
            return self.apply(x_NCHW, self.sample(len(x_NCHW), strength, generator))


@attrs.frozen(kw_only=True)
class Rotation(Affine):
    """`rot`: a random rotation about the image's centre.

    The angle is uniform in [-budget, budget] degrees times the strength (the random spatial
    threat of Kamath et al. 2021).

    Args:
        budget: the largest angle, in degrees, from 0 to 180.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what shows where the image has turned away: ``zeros``, ``border``, ``reflection``.
    """

    unit: ClassVar[str] = "degrees"

    budget: float = attrs.field(validator=and_(ge(0.0), le(180.0)))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Angles (n, 1) in degrees."""
        return uniform(n, 1, self.budget, strength, generator)

    def grid(self, strength: float, points: int) -> Tensor:
        """``points`` angles (points, 1), evenly from one end of the range to the other."""
        bound = strength * self.budget
        return torch.linspace(-bound, bound, points)[:, None]

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """theta_N23 of angles (n, 1)."""
        return rotation_theta(parameters_NP[:, 0])


@attrs.frozen(kw_only=True)
class Translation(Affine):
    """`trans`: a random shift, right and down, each uniform in [-budget, budget] pixels times the
    strength (not rounded to whole pixels).

    Args:
        budget: the largest shift along an axis, in pixels, from 0 to 1e6.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what shows where the image has moved away: ``zeros``, ``border``, ``reflection``.
    """

    unit: ClassVar[str] = "pixels"

    budget: float = attrs.field(validator=and_(ge(0.0), le(1e6)))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Shifts (n, 2) in pixels, (right, down)."""
        return uniform(n, 2, self.budget, strength, generator)

    def grid(self, strength: float, points: int) -> Tensor:
        """``points`` x ``points`` shifts (points ** 2, 2)."""
        bound = strength * self.budget
        return torch.cartesian_prod(*[torch.linspace(-bound, bound, points)] * 2)

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """theta_N23 of shifts (n, 2)."""
        return translation_theta(parameters_NP)
