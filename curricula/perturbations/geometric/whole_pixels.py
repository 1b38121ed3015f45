"""Moves of whole pixels, which no interpolation blurs: `flip`, `crop` and `roll`."""

import math
from typing import Any, ClassVar, Literal

import attrs
import torch
from attrs.validators import and_, ge, le
from torch import Tensor

from curricula.geometry import shift
from curricula.interfaces import Padding, PerturbationKind, Strength
from curricula.perturbations.parametric import Parametric, combinations, evenly

LARGEST = 10_000  # pixels; more than the side of any image


def _whole(instance: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value % 1:
        raise ValueError(f"'{attribute.name}' must be a whole number of pixels, not {value:g}")


_whole_pixels = and_(ge(0), le(LARGEST), _whole)


def whole_shifts(n: int, budget: float, strength: Strength, generator: torch.Generator) -> Tensor:
    """Shifts (n, 2), each a whole number drawn uniformly within budget x strength."""
    largest = _largest(budget, strength)
    drawn = torch.rand((n, 2), generator=generator, device=generator.device)
    return torch.floor(drawn * (2 * largest + 1)) - largest


def shift_lattice(budget: float, strength: Strength, points: int) -> Tensor:
    """The grid over the same whole numbers: (G, 2), or (G, N, 2) for (N,) strengths. More points
    than there are whole numbers give these."""
    largest = _largest(budget, strength)
    widest = budget if isinstance(largest, Tensor) else largest
    axis = evenly(-1.0, 1.0, min(points, int(2 * widest + 1)))
    pairs = combinations(axis, 2, 1.0)
    if isinstance(largest, Tensor):
        return torch.round(pairs.to(largest.device)[:, None] * largest)
    return torch.round(pairs * largest)


def _largest(budget: float, strength: Strength) -> float | Tensor:
    """The largest whole shift within budget x strength; (N, 1) for strengths (N,)."""
    if isinstance(strength, Tensor):
        return torch.floor(strength.float() * budget)[:, None]
    return math.floor(strength * budget)


@attrs.frozen(kw_only=True)
class Flip(Parametric):
    """`flip`: each image mirrored or not, exactly.

    The probability of the mirror image is budget times the strength.

    Args:
        budget: the probability at full strength, from 0 to 1; 0.5 by default.
        direction: ``horizontal`` swaps left and right, ``vertical`` top and bottom.
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "probability"

    budget: float = attrs.field(default=0.5, validator=and_(ge(0.0), le(1.0)))
    direction: Literal["horizontal", "vertical"] = "horizontal"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """(n, 1): 1 for those to mirror, 0 for the others."""
        drawn = torch.rand((n, 1), generator=generator, device=generator.device)
        if isinstance(strength, Tensor):
            strength = strength.to(drawn)[:, None]
        return (drawn < strength * self.budget).to(drawn)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Unflipped and flipped, whatever ``points`` says; twice unflipped where no flip can be
        drawn."""
        both = torch.tensor([[0.0], [1.0]])
        if isinstance(strength, Tensor):
            return both.to(strength.device)[:, None] * (strength[:, None] * self.budget > 0)
        return both * (strength * self.budget > 0)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images, mirrored where the parameter is 1."""
        mirrored = x_NCHW.flip(3 if self.direction == "horizontal" else 2)
        chosen = parameters_NP.to(x_NCHW.device)[:, :, None, None] == 1
        return torch.where(chosen, mirrored, x_NCHW)


@attrs.frozen(kw_only=True)
class Crop(Parametric):
    """`crop`: a random crop of the padded image, of the image's own size.

    That is a shift, right and down, each uniform among the whole numbers of pixels within budget
    times the strength. ``crop:4+flip:0.5`` is the standard augmentation of CIFAR (He et al. 2016,
    section 4.2).

    Args:
        budget: the largest shift along an axis, in whole pixels, from 0 to 10,000; 4 by default.
        padding: what the image is padded with: ``zeros``, the ``border``'s pixels, or the
            ``reflection`` (which repeats the outermost pixel).
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "pixels"

    budget: float = attrs.field(default=4, validator=_whole_pixels)
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Shifts (n, 2) in whole pixels, (right, down)."""
        return whole_shifts(n, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """``points`` x ``points`` shifts, or all where there are fewer whole numbers."""
        return shift_lattice(self.budget, strength, points)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images moved by shifts (n, 2)."""
        return shift(x_NCHW, parameters_NP, self.padding)


@attrs.frozen(kw_only=True)
class Roll(Parametric):
    """`roll`: a random cyclic shift: what leaves at one side enters at the other.

    The shifts right and down are each uniform among the whole numbers of pixels within budget
    times the strength.

    Args:
        budget: the largest shift along an axis, in whole pixels, from 0 to 10,000.
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "pixels"

    budget: float = attrs.field(validator=_whole_pixels)

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Shifts (n, 2) in whole pixels, (right, down)."""
        return whole_shifts(n, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """``points`` x ``points`` shifts, or all where there are fewer whole numbers."""
        return shift_lattice(self.budget, strength, points)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images moved by shifts (n, 2)."""
        return shift(x_NCHW, parameters_NP, "wrap")
