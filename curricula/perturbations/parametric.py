"""Perturbations that are a function of the image and of a few random numbers."""

from typing import ClassVar

import torch
from torch import Tensor

from curricula.interfaces import NormBound, Strength, Victim


def uniform(
    n: int, columns: int, bound: float, strength: Strength, generator: torch.Generator
) -> Tensor:
    """(n, columns) drawn uniformly from [-bound, bound] times the strength of each row."""
    drawn = torch.rand((n, columns), generator=generator, device=generator.device) * 2 - 1
    if isinstance(strength, Tensor):
        strength = strength.to(drawn)[:, None]
    return drawn * (strength * bound)


def lattice(columns: int, bound: float, strength: Strength, points: int) -> Tensor:
    """The regular grid over [-bound, bound] ** columns times the strength, ``points`` values a
    column, the first column slowest: (G, columns) for a float, (G, N, columns) for (N,)."""
    return combinations(evenly(-bound, bound, points), columns, strength)


def evenly(low: float, high: float, points: int) -> Tensor:
    """``points`` values from low to high, ends included; a single one is the middle."""
    return torch.linspace(low, high, points) if points > 1 else torch.tensor([(low + high) / 2])


def combinations(axis: Tensor, columns: int, strength: Strength) -> Tensor:
    """Every row of ``columns`` values of an axis, the first column slowest, times the strength:
    (G, columns) for a float, (G, N, columns) for (N,)."""
    whole = torch.cartesian_prod(*[axis] * columns).reshape(-1, columns)
    if isinstance(strength, Tensor):
        return whole.to(strength.device)[:, None] * strength[:, None]
    return whole * strength


class Parametric:
    """What such perturbations share: `__call__` follows from `sample` and `apply`."""

    norm_bound: ClassVar[NormBound | None] = None
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Random parameters, one row an image."""
        raise NotImplementedError

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images changed by given parameters, one row each."""
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
