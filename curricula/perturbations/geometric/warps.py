"""Warps of the image plane that are not affine: `perspective` and `elastic`."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from curricula.geometry import quadrilateral_homography, warp_displaced, warp_projective
from curricula.interfaces import (
    Interpolation,
    NormBound,
    Padding,
    PerturbationKind,
    Strength,
    Victim,
    strength_per_image,
)
from curricula.perturbations.parametric import Parametric, combinations, evenly
from curricula.perturbations.validators import MAX_BUDGET, between, valid_budget


def smooth_field(noise_NCHW: Tensor, sigma: float) -> Tensor:
    """Return the noise NCHW filtered by a Gaussian along height and width, with zeros beyond the
    border.

    Each axis is one matrix product, so the Gaussian may be wider than the image. The Gaussian is
    not normalised, so the result is correct up to a factor.

    Args:
        noise_NCHW: white noise.
        sigma: standard deviation of the Gaussian, in pixels.
    """
    rows, columns = (_gaussian(size, sigma, noise_NCHW) for size in noise_NCHW.shape[2:])
    return rows @ noise_NCHW @ columns


def _gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    place = torch.arange(size, dtype=like.dtype, device=like.device)
    return torch.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)


def displacement(noise_NCHW: Tensor, sigma: float, longest_N: Tensor) -> Tensor:
    """Return displacement_NHW2 in pixels, (right, down): smoothed white noise, scaled to a given
    longest displacement of each image (Simard et al. 2003, section 2).

    Args:
        noise_NCHW: white noise in two channels, for the displacements right and down.
        sigma: standard deviation of the Gaussian, in pixels.
        longest_N: longest displacement of each image, in pixels.

    >>> noise = torch.randn((2, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    >>> field = displacement(noise, sigma=4.0, longest_N=torch.tensor([1.5, 3.0]))
    >>> field.norm(dim=-1).amax((1, 2))
    tensor([1.5000, 3.0000])
    """
    smooth = smooth_field(noise_NCHW, sigma)
    length_N = torch.hypot(smooth[:, 0], smooth[:, 1]).amax(dim=(1, 2))
    factor_N = longest_N / torch.where(length_N > 0, length_N, 1)
    return (smooth * factor_N[:, None, None, None]).permute(0, 2, 3, 1)


@attrs.frozen(kw_only=True)
class Perspective(Parametric):
    """Warp each image to a random perspective, like torchvision's ``RandomPerspective``.

    Each corner moves inwards along both axes, by a share of the side that is uniform in
    [0, budget / 2] times the strength, not rounded to whole pixels.

    Args:
        budget: twice the largest share, from 0 to 0.6 (beyond 2/3 the corners may fold); 0.5 by
            default.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what surrounds the image: ``zeros``, ``border``, ``reflection``.

    Raises:
        ValueError: a value out of range.

    Example:
        The top left corner moves inwards by 40 % of the side, and zeros fill what it leaves:

        >>> inward = torch.tensor([[0.4, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
        >>> perspective = Perspective(interpolation="nearest")
        >>> perspective.apply(torch.ones(1, 1, 4, 4), inward).squeeze()
        tensor([[0., 0., 0., 1.],
                [0., 0., 1., 1.],
                [0., 1., 1., 1.],
                [1., 1., 1., 1.]])
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "share"

    budget: float = attrs.field(default=0.5, validator=between(0.0, 0.6))
    interpolation: Interpolation = "bilinear"
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random parameters (n, 8): how far the top left, top right, bottom right and bottom
        left corner move inwards, each along x and y, as shares of the width and height."""
        drawn = torch.rand((n, 8), generator=generator, device=generator.device)
        return drawn * (strength_per_image(strength, drawn) * (self.budget / 2))

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return rows of parameters in which each corner moves along its own diagonal: (points**4,
        8), or (points**4, N, 8) for strengths (N,). (All eight numbers would give ``points`` ** 8
        rows.)"""
        axis = evenly(0.0, self.budget / 2, points)
        return combinations(axis, 4, strength).repeat_interleave(2, dim=-1)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return images NCHW in [0, 1] with their corners moved inwards by parameters (N, 8)."""
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
    """Displace every pixel by a smooth random field (Simard et al. 2003, section 2).

    The field is white Gaussian noise, one channel per axis, filtered by a Gaussian of ``sigma``
    pixels and scaled so that the longest displacement of each image (Euclidean) is budget times the
    strength.

    Args:
        budget: the longest displacement, in pixels, from 0 to 1e6.
        sigma: standard deviation of the filter, in pixels, from 0.1 to 1e6; larger is smoother. 4
            by default, as in Simard et al.
        interpolation: ``bilinear`` or ``nearest``.
        padding: what fills the uncovered edge: ``zeros``, ``border``, ``reflection``.

    Raises:
        ValueError: a value out of range.

    Example:
        On a ramp that rises by 1/32 per pixel, the change shows how far pixels move sideways:

        >>> x = torch.linspace(0, 1, 33).expand(3, 1, 33, 33)
        >>> strength, generator = torch.tensor([0.0, 0.5, 1.0]), torch.Generator().manual_seed(0)
        >>> elastic = Elastic(budget=3.0, padding="border")
        >>> warped = elastic(x, None, strength=strength, victim=None, generator=generator)
        >>> ((warped - x) * 32).abs().amax((1, 2, 3)).round(decimals=1)
        tensor([0.0000, 1.4000, 2.9000])
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "pixels"
    norm_bound: ClassVar[NormBound | None] = None
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=valid_budget)
    sigma: float = attrs.field(default=4.0, validator=between(0.1, MAX_BUDGET))
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
            longest_N = noise.new_ones(n) * strength * self.budget
            moved = displacement(noise, self.sigma, longest_N)
        return warp_displaced(x_NCHW, moved, interpolation=self.interpolation, padding=self.padding)
