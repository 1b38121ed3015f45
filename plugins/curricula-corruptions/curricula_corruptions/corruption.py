"""The base of all corruptions: severities, their interpolation, and random numbers.

A corruption draws random fields once, equal for all severities, and then changes the images as a
function of the severity. So an image's change grows along one path as the strength grows.
"""

from collections.abc import Sequence
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
from curricula.perturbations.validators import between

SEVERITIES = 5
SNAP = 1e-4  # severities this close to a whole number are that number: 5 * 0.6 may be 3.0000001

Fields = tuple[Tensor, ...]
"""Random numbers of a corruption, one row per image in each tensor."""


class Corruption:
    """Base of the corruptions: the severity is the budget times the strength.

    A subclass draws `fields` and implements `corrupted`.
    """

    kind: ClassVar[PerturbationKind] = "intensity"
    unit: ClassVar[str] = "severity"
    norm_bound: ClassVar[NormBound | None] = None
    channels: ClassVar[frozenset[int] | None] = frozenset({1, 3})
    training_only: ClassVar[bool] = False

    budget: float

    def fields(self, x_NCHW: Tensor, generator: torch.Generator) -> Fields:
        """Return the random numbers of a call, one row per image in each tensor."""
        return ()

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images NCHW at severities (N,) from 0 to 5, those at 0 in any form."""
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
            x = x_NCHW.float()  # severities and levels of 255 need its precision
            fields = self.fields(x, generator)
            severity_N = severities(strength, self.budget, x)
            out = self.corrupted(x, severity_N, fields).clamp(0, 1).to(x_NCHW.dtype)
            return torch.where(severity_N[:, None, None, None] > 0, out, x_NCHW)


def severities(strength: Strength, budget: float, x_NCHW: Tensor) -> Tensor:
    """Return the severity (N,) of each image, the budget times its strength.

    >>> severities(0.6, 5.0, torch.zeros(2, 3, 8, 8))
    tensor([3., 3.])
    """
    share = strength_per_image(strength, x_NCHW[:, 0, 0, 0])
    severity_N = x_NCHW.new_ones(len(x_NCHW)) * (share * budget)
    whole_N = severity_N.round()
    return torch.where((severity_N - whole_N).abs() < SNAP, whole_N, severity_N)


def constant(severity_N: Tensor, values: Sequence[float]) -> Tensor:
    """Return a constant of each image (N, 1, 1, 1), linear between the six values that it has at
    severities 0 to 5.

    >>> constant(torch.tensor([0.0, 0.5, 3.0]), (0.0, 0.2, 0.3, 0.4, 0.5, 0.6)).flatten()
    tensor([0.0000, 0.1000, 0.4000])
    """
    table = severity_N.new_tensor(values)
    low_N = severity_N.floor().clamp(0, SEVERITIES - 1)
    index_N = low_N.long()
    return torch.lerp(table[index_N], table[index_N + 1], severity_N - low_N)[:, None, None, None]


class Stepped(Corruption):
    """Base of the corruptions whose constants are whole numbers or kernels: between two severities
    an image is a mixture of the two images, made with the same random numbers."""

    def at(self, x_NCHW: Tensor, severity: int, fields: Fields) -> Tensor:
        """Return images NCHW at a severity from 1 to 5."""
        raise NotImplementedError

    def corrupted(self, x_NCHW: Tensor, severity_N: Tensor, fields: Fields) -> Tensor:
        """Return images NCHW at severities (N,), each severity computed for its images only."""
        steps = torch.arange(SEVERITIES + 1, device=x_NCHW.device)
        weights_NS = (1 - (severity_N[:, None] - steps).abs()).clamp_min(0)
        out = x_NCHW * weights_NS[:, 0, None, None, None]
        for severity in range(1, SEVERITIES + 1):
            index_M = weights_NS[:, severity].nonzero().squeeze(1)
            if len(index_M) == 0:
                continue
            rows = tuple(field[index_M] for field in fields)
            changed = self.at(x_NCHW[index_M], severity, rows).clamp(0, 1)
            share = weights_NS[index_M, severity, None, None, None]
            out.index_add_(0, index_M, changed * share)
        return out


def severity_budget() -> float:
    """Return the field of a budget: the severity at strength 1, from 0 to 5; 5 by default."""
    field: float = attrs.field(default=float(SEVERITIES), validator=between(0.0, SEVERITIES))
    return field


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return uniform numbers in [0, 1), one row per image."""
    return torch.rand(tuple(shape), generator=generator, device=generator.device)


def gaussian(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return standard normal numbers, one row per image."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device)
