"""Affine changes of the image plane: the perturbations `rot` and `trans`."""

from typing import ClassVar

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from curricula.geometry import rotation_theta, translation_theta, warp
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
