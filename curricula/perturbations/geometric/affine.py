"""Affine changes of the image plane: the perturbations `rot`, `trans`, `scale` and `shear`."""

from typing import ClassVar

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from curricula.geometry import (
    rotation_theta,
    scale_theta,
    shear_theta,
    translation_theta,
    warp,
)
from curricula.interfaces import Interpolation, Padding, PerturbationKind, Strength
from curricula.perturbations.parametric import Parametric, lattice, uniform


class Affine(Parametric):
    """What affine perturbations share: `apply` follows from `matrix`."""

    kind: ClassVar[PerturbationKind] = "spatial"

    interpolation: Interpolation
    padding: Padding

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

    def grid(self, strength: Strength, points: int) -> Tensor:
        """``points`` angles, evenly from one end of the range to the other."""
        return lattice(1, self.budget, strength, points)

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

    def grid(self, strength: Strength, points: int) -> Tensor:
        """``points`` x ``points`` shifts, evenly over the square."""
        return lattice(2, self.budget, strength, points)

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """theta_N23 of shifts (n, 2)."""
        return translation_theta(parameters_NP)


@attrs.frozen(kw_only=True)
class Scale(Affine):
    """`scale`: a random change of size about the image's centre, the same along both axes.

    The factor is uniform in [1 - budget, 1 + budget], with budget times the strength; above 1 the
    image grows. The parameter is the factor less 1.

    Args:
        budget: the largest change of the factor, as a share, from 0 to 0.99; 0.2 by default.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what shows around an image that has shrunk: ``zeros``, ``border``, ``reflection``.
    """

    unit: ClassVar[str] = "share"

    budget: float = attrs.field(default=0.2, validator=and_(ge(0.0), le(0.99)))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Factors less 1, (n, 1)."""
        return uniform(n, 1, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """``points`` factors less 1, evenly from one end of the range to the other."""
        return lattice(1, self.budget, strength, points)

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """theta_N23 of factors less 1, (n, 1)."""
        return scale_theta(1 + parameters_NP[:, 0])


@attrs.frozen(kw_only=True)
class Shear(Affine):
    """`shear`: a random shear about the image's centre, along x and then along y.

    Each of the two angles is uniform in [-budget, budget] degrees times the strength, with the
    signs of torchvision's ``affine``: along x by a positive angle, what is below the centre moves
    left by the tangent for each pixel that it is below; along y, what is to the right moves up.

    Args:
        budget: the largest angle along an axis, in degrees, from 0 to 80; 15 by default.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what shows where the image has moved away: ``zeros``, ``border``, ``reflection``.
    """

    unit: ClassVar[str] = "degrees"

    budget: float = attrs.field(default=15.0, validator=and_(ge(0.0), le(80.0)))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Angles (n, 2) in degrees, (along x, along y)."""
        return uniform(n, 2, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """``points`` x ``points`` pairs of angles, evenly over the square."""
        return lattice(2, self.budget, strength, points)

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """theta_N23 of pairs of angles (n, 2)."""
        return shear_theta(parameters_NP)
