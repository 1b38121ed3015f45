"""Perturbations that are a function of the image and of a few random numbers."""

from typing import ClassVar

import torch
from torch import Tensor

from curricula.interfaces import NormBound, Strength, Victim, strength_per_image


def uniform(
    n: int, columns: int, bound: float, strength: Strength, generator: torch.Generator
) -> Tensor:
    """Return random parameters (n, columns), uniform within +-bound times each row's strength."""
    drawn = torch.rand((n, columns), generator=generator, device=generator.device) * 2 - 1
    return drawn * (strength_per_image(strength, drawn) * bound)


def lattice(columns: int, bound: float, strength: Strength, points: int) -> Tensor:
    """Return the regular grid of parameters over [-bound, bound] ** columns, times the strength.

    It has ``points`` values per column, and the first column varies slowest: (G, columns) for a
    float, (G, N, columns) for strengths (N,).

    >>> lattice(2, bound=4.0, strength=0.5, points=2)
    tensor([[-2., -2.],
            [-2.,  2.],
            [ 2., -2.],
            [ 2.,  2.]])
    """
    return combinations(evenly(-bound, bound, points), columns, strength)


def evenly(low: float, high: float, points: int) -> Tensor:
    """Return ``points`` evenly spaced values (points,), both ends included; a single one is the
    middle."""
    return torch.linspace(low, high, points) if points > 1 else torch.tensor([(low + high) / 2])


def combinations(axis: Tensor, columns: int, strength: Strength) -> Tensor:
    """Return all rows of ``columns`` values taken from ``axis``, times the strength.

    The first column varies slowest: (G, columns) for a float, (G, N, columns) for strengths (N,).
    """
    return grid_per_image(torch.cartesian_prod(*[axis] * columns).reshape(-1, columns), strength)


def grid_per_image(points_GP: Tensor, strength: Strength) -> Tensor:
    """Return a grid (G, P) times the strength: (G, P) for a float, (G, N, P) for strengths (N,)."""
    if isinstance(strength, Tensor):
        return points_GP.to(strength.device)[:, None] * strength[:, None]
    return points_GP * strength


class Parametric:
    """Base of the perturbations that draw parameters by `sample` and change images by `apply`."""

    norm_bound: ClassVar[NormBound | None] = None
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random parameters (n, P), one row for each image."""
        raise NotImplementedError

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return images NCHW in [0, 1], each changed by its row of parameters (N, P)."""
        raise NotImplementedError

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
