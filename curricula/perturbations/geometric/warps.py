"""Warps of the image plane that are not affine: `perspective` and `elastic`."""

from typing import ClassVar

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from curricula.geometry import quadrilateral_homography, warp_displaced, warp_projective
from curricula.interfaces import (
    Interpolation,
    NormBound,
    Padding,
    PerturbationKind,
    Strength,
    Victim,
)
from curricula.perturbations.parametric import Parametric, combinations, evenly


def smooth_field(noise_NCHW: Tensor, sigma: float) -> Tensor:
    """Noise filtered by a Gaussian along both axes, with nothing beyond the border.

    Each axis is one matrix product, so a Gaussian wider than the image is no matter. The result
    is not normalised: it is right up to a factor.

    Args:
        noise_NCHW: white noise.
        sigma: standard deviation of the Gaussian, in pixels.
    """
    rows, columns = (_gaussian(size, sigma, noise_NCHW) for size in noise_NCHW.shape[2:])
    return rows @ noise_NCHW @ columns


def _gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    place = torch.arange(size, dtype=like.dtype, device=like.device)
    return torch.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)


def displacement(noise_NCHW: Tensor, sigma: float, largest_N: Tensor) -> Tensor:
    """displacement_NHW2 of two channels of white noise: smooth, and at its longest of a given
    length, in pixels (Simard et al. 2003, section 2)."""
    smooth = smooth_field(noise_NCHW, sigma)
    longest_N = torch.hypot(smooth[:, 0], smooth[:, 1]).amax(dim=(1, 2))
    factor_N = largest_N / torch.where(longest_N > 0, longest_N, 1)
    return (smooth * factor_N[:, None, None, None]).permute(0, 2, 3, 1)


@attrs.frozen(kw_only=True)
class Perspective(Parametric):
    """`perspective`: the image seen at a slant, as torchvision's ``RandomPerspective`` has it.

    Each corner moves inwards along both axes, by a share of the side that is uniform in
    [0, budget / 2] times the strength (not rounded to whole pixels).

    Args:
        budget: twice the largest share, from 0 to 0.6 (beyond 2/3 the corners may fold); 0.5 by
            default.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what shows outside the image: ``zeros``, ``border``, ``reflection``.
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "share"

    budget: float = attrs.field(default=0.5, validator=and_(ge(0.0), le(0.6)))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """(n, 8): how far the top left, top right, bottom right and bottom left corner move
        inwards, each along x and along y, as shares of the width and height."""
        drawn = torch.rand((n, 8), generator=generator, device=generator.device)
        if isinstance(strength, Tensor):
            strength = strength.to(drawn)[:, None]
        return drawn * (strength * (self.budget / 2))

    def grid(self, strength: Strength, points: int) -> Tensor:
        """``points`` ** 4 slants: each corner along its own diagonal. (All eight numbers would
        give ``points`` ** 8.)"""
        axis = evenly(0.0, self.budget / 2, points)
        return combinations(axis, 4, strength).repeat_interleave(2, dim=-1)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images with their corners moved inwards, by (n, 8)."""
        inward = parameters_NP.to(x_NCHW).reshape(-1, 4, 2)
        left, top = inward[..., 0], inward[..., 1]
        # In the order top left, top right, bottom right, bottom left.
        x_N4 = torch.stack((left[:, 0], 1 - left[:, 1], 1 - left[:, 2], left[:, 3]), 1)
        y_N4 = torch.stack((top[:, 0], top[:, 1], 1 - top[:, 2], 1 - top[:, 3]), 1)
        return warp_projective(
            x_NCHW,
            quadrilateral_homography(torch.stack((x_N4, y_N4), -1)),
            interpolation=self.interpolation,
            padding=self.padding,
        )


@attrs.frozen(kw_only=True)
class Elastic:
    """`elastic`: a smooth random displacement of every pixel (Simard et al. 2003, section 2).

    White Gaussian noise, one field for each axis, filtered by a Gaussian of ``sigma`` pixels;
    then scaled for each image, so that its longest displacement (Euclidean) is budget times the
    strength.

    Args:
        budget: the longest displacement, in pixels, from 0 to 1e6.
        sigma: how smooth the field is: the Gaussian's standard deviation, in pixels, from 0.1 to
            1e6; 4 by default, as Simard et al. take it.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what shows where the image has moved away: ``zeros``, ``border``, ``reflection``.
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "pixels"
    norm_bound: ClassVar[NormBound | None] = None
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=and_(ge(0.0), le(1e6)))
    sigma: float = attrs.field(default=4.0, validator=and_(ge(0.1), le(1e6)))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strength: Strength,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        n, _, height, width = x_NCHW.shape
        with torch.no_grad():
            noise = torch.randn((n, 2, height, width), generator=generator, device=generator.device)
            largest_N = noise.new_ones(n) * strength * self.budget
            return warp_displaced(
                x_NCHW,
                displacement(noise, self.sigma, largest_N),
                interpolation=self.interpolation,
                padding=self.padding,
            )
