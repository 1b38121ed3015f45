"""Affine changes of the image plane: the perturbations `rot`, `trans`, `scale` and `shear`."""

from typing import ClassVar

import attrs
import torch
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
from curricula.perturbations.validators import between, valid_budget


class Affine(Parametric):
    """Base of the affine perturbations, which define `matrix`; `apply` warps images by it."""

    kind: ClassVar[PerturbationKind] = "spatial"

    interpolation: Interpolation
    padding: Padding

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """Return theta_N23, which maps each output position to an input position (see
        curricula.geometry)."""
        raise NotImplementedError

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return images NCHW in [0, 1], each warped by the affine map of its row of parameters."""
        return warp(
            x_NCHW,
            self.matrix(parameters_NP),
            interpolation=self.interpolation,
            padding=self.padding,
        )


@attrs.frozen(kw_only=True)
class Rotation(Affine):
    """Rotate each image about its centre by a random angle.

    The angle is uniform in [-budget, budget] degrees times the strength (the random spatial
    threat of Kamath et al. 2021).

    Args:
        budget: the largest angle, in degrees, from 0 to 180.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what fills the uncovered corners: ``zeros``, ``border``, ``reflection``.

    Raises:
        ValueError: a value out of range.

    Example:
        A grid over the angles of strength 0.5, and a quarter turn counter-clockwise:

        >>> Rotation(budget=30.0).grid(0.5, points=3).flatten()
        tensor([-15.,   0.,  15.])
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).reshape(1, 1, 2, 2)
        >>> Rotation(budget=90.0).apply(x, torch.tensor([[90.0]])).round().squeeze()
        tensor([[1., 0.],
                [0., 0.]])
    """

    unit: ClassVar[str] = "degrees"

    budget: float = attrs.field(validator=between(0.0, 180.0))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random angles (n, 1) in degrees, uniform within +-budget times the strength."""
        return uniform(n, 1, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return evenly spaced angles in degrees within +-budget times the strength: (points, 1),
        or (points, N, 1) for strengths (N,)."""
        return lattice(1, self.budget, strength, points)

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """Return theta_N23 that rotates images by angles (N, 1) in degrees."""
        return rotation_theta(parameters_NP[:, 0])


@attrs.frozen(kw_only=True)
class Translation(Affine):
    """Shift each image right and down by random distances.

    Both are uniform in [-budget, budget] pixels times the strength, not rounded to whole pixels.

    Args:
        budget: the largest shift along an axis, in pixels, from 0 to 1e6.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what fills the uncovered edge: ``zeros``, ``border``, ``reflection``.

    Raises:
        ValueError: a value out of range.

    Example:
        One pixel to the right, then half a pixel, which interpolates:

        >>> x = torch.tensor([0.0, 1.0, 0.0, 0.0]).expand(2, 1, 1, 4)
        >>> Translation(budget=2.0).apply(x, torch.tensor([[1.0, 0.0], [0.5, 0.0]])).squeeze()
        tensor([[0.0000, 0.0000, 1.0000, 0.0000],
                [0.0000, 0.5000, 0.5000, 0.0000]])
    """

    unit: ClassVar[str] = "pixels"

    budget: float = attrs.field(validator=valid_budget)
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random shifts (n, 2) in pixels, (right, down), uniform within +-budget times the
        strength."""
        return uniform(n, 2, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return evenly spaced shifts in pixels, (right, down), each axis within +-budget times the
        strength: (points**2, 2), or (points**2, N, 2) for strengths (N,)."""
        return lattice(2, self.budget, strength, points)

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """Return theta_N23 that shifts images by (N, 2) pixels, (right, down)."""
        return translation_theta(parameters_NP)


@attrs.frozen(kw_only=True)
class Scale(Affine):
    """Enlarge or shrink each image about its centre by a random factor, the same along both axes.

    The factor is uniform in [1 - budget, 1 + budget], with budget times the strength; above 1 the
    image grows. The parameter is the factor minus 1.

    Args:
        budget: the largest change of the factor, as a share, from 0 to 0.99; 0.2 by default.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what surrounds an image that has shrunk: ``zeros``, ``border``, ``reflection``.

    Raises:
        ValueError: a value out of range.

    Example:
        Twice the size shows the middle of the image:

        >>> x = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(1, 1, 4, 4)
        >>> scale = Scale(interpolation="nearest")
        >>> scale.apply(x, torch.tensor([[1.0]]))[0, 0, 0]
        tensor([0.2000, 0.2000, 0.3000, 0.3000])
    """

    unit: ClassVar[str] = "share"

    budget: float = attrs.field(default=0.2, validator=between(0.0, 0.99))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random changes of the scale factor (the factor minus 1), (n, 1), uniform within
        +-budget times the strength."""
        return uniform(n, 1, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return evenly spaced changes of the scale factor (the factor minus 1) within +-budget
        times the strength: (points, 1), or (points, N, 1) for strengths (N,)."""
        return lattice(1, self.budget, strength, points)

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """Return theta_N23 that scales images by 1 + parameter, for parameters (N, 1)."""
        return scale_theta(1 + parameters_NP[:, 0])


@attrs.frozen(kw_only=True)
class Shear(Affine):
    """Shear each image about its centre by two random angles, along x and then along y.

    Both angles are uniform in [-budget, budget] degrees times the strength, with the signs of
    torchvision's ``affine``. A positive angle along x moves points y pixels below the centre left
    by y times its tangent; a positive angle along y moves points right of the centre up.

    Args:
        budget: the largest angle along an axis, in degrees, from 0 to 80; 15 by default.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what fills the uncovered corners: ``zeros``, ``border``, ``reflection``.

    Raises:
        ValueError: a value out of range.

    Example:
        By 45 degrees along x, the row above the centre moves right and the row below it left:

        >>> x = torch.tensor([0.0, 1.0, 0.0]).expand(1, 1, 3, 3)
        >>> Shear().apply(x, torch.tensor([[45.0, 0.0]])).round().abs().squeeze()
        tensor([[0., 0., 1.],
                [0., 1., 0.],
                [1., 0., 0.]])
    """

    unit: ClassVar[str] = "degrees"

    budget: float = attrs.field(default=15.0, validator=between(0.0, 80.0))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random angles (n, 2) in degrees, (along x, along y), uniform within +-budget times
        the strength."""
        return uniform(n, 2, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return evenly spaced pairs of angles in degrees, (along x, along y), each within +-budget
        times the strength: (points**2, 2), or (points**2, N, 2) for strengths (N,)."""
        return lattice(2, self.budget, strength, points)

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """Return theta_N23 that shears images by angles (N, 2) in degrees, (along x, along y)."""
        return shear_theta(parameters_NP)
