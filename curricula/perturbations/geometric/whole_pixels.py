"""Changes that move whole pixels and need no interpolation: `flip`, `crop` and `roll`."""

import math
from typing import Any, ClassVar, Literal

import attrs
import torch
from attrs.validators import and_
from torch import Tensor

from curricula.geometry import shift
from curricula.interfaces import Padding, PerturbationKind, Strength, strength_per_image
from curricula.perturbations.parametric import Parametric, combinations, evenly, grid_per_image
from curricula.perturbations.validators import between

MAX_SHIFT = 10_000  # pixels; more than the side of any image


def _whole(instance: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value % 1:
        raise ValueError(f"'{attribute.name}' must be a whole number of pixels, not {value:g}")


_whole_pixels = and_(between(0, MAX_SHIFT), _whole)


def whole_shifts(n: int, budget: float, strength: Strength, generator: torch.Generator) -> Tensor:
    """Return random shifts (n, 2) in whole pixels, each uniform within +-budget times the
    strength."""
    largest = _largest(budget, strength)
    drawn = torch.rand((n, 2), generator=generator, device=generator.device)
    return torch.floor(drawn * (2 * largest + 1)) - largest


def shift_lattice(budget: float, strength: Strength, points: int) -> Tensor:
    """Return a grid of shifts in whole pixels within +-budget times the strength: (G, 2), or (G, N,
    2) for strengths (N,).

    It has ``points`` values per axis, or all whole numbers if there are fewer.
    """
    largest = _largest(budget, strength)
    widest = budget if isinstance(largest, Tensor) else largest
    axis = evenly(-1.0, 1.0, min(points, int(2 * widest + 1)))
    pairs = combinations(axis, 2, 1.0)
    if isinstance(largest, Tensor):
        return torch.round(pairs.to(largest.device)[:, None] * largest)
    return torch.round(pairs * largest)


def _largest(budget: float, strength: Strength) -> float | Tensor:
    """Return the largest shift in whole pixels within budget times the strength; (N, 1) for
    strengths (N,)."""
    if isinstance(strength, Tensor):
        return torch.floor(strength.float() * budget)[:, None]
    return math.floor(strength * budget)


@attrs.frozen(kw_only=True)
class Flip(Parametric):
    """Mirror each image with a probability of budget times the strength.

    Args:
        budget: the probability at full strength, from 0 to 1; 0.5 by default.
        direction: ``horizontal`` swaps left and right, ``vertical`` top and bottom.

    Raises:
        ValueError: a value out of range.

    Example:
        A quarter of the images is mirrored at strength 0.5:

        >>> mirrored = Flip().sample(1000, 0.5, torch.Generator().manual_seed(0))
        >>> f"{mirrored.mean():.2f}"
        '0.25'
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "probability"

    budget: float = attrs.field(default=0.5, validator=between(0.0, 1.0))
    direction: Literal["horizontal", "vertical"] = "horizontal"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random parameters (n, 1): 1 for the images to mirror, 0 for the others."""
        drawn = torch.rand((n, 1), generator=generator, device=generator.device)
        return (drawn < strength_per_image(strength, drawn) * self.budget).to(drawn)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return the parameters 0 (unflipped) and 1 (flipped), whatever ``points`` is: (2, 1), or
        (2, N, 1) for strengths (N,); 0 twice where the probability of a flip is 0."""
        return grid_per_image(torch.tensor([[0.0], [1.0]]), strength * self.budget > 0)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return images NCHW, mirrored where the parameter (N, 1) is 1."""
        mirrored = x_NCHW.flip(3 if self.direction == "horizontal" else 2)
        chosen = parameters_NP.to(x_NCHW.device)[:, :, None, None] == 1
        return torch.where(chosen, mirrored, x_NCHW)


@attrs.frozen(kw_only=True)
class Crop(Parametric):
    """Crop each padded image at a random place, back to its own size.

    This is a shift right and down, each uniform among the whole numbers of pixels within budget
    times the strength. ``crop:4+flip:0.5`` is the standard augmentation of CIFAR (He et al. 2016,
    section 4.2).

    Args:
        budget: the largest shift along an axis, in whole pixels, from 0 to 10,000; 4 by default.
        padding: what the image is padded with: ``zeros``, the ``border``'s pixels, or the
            ``reflection`` (which repeats the outermost pixel).

    Raises:
        ValueError: a value out of range.

    Example:
        Two pixels to the right, under two kinds of padding:

        >>> x = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(1, 1, 1, 4)
        >>> Crop().apply(x, torch.tensor([[2.0, 0.0]])).squeeze()
        tensor([0.0000, 0.0000, 0.1000, 0.2000])
        >>> Crop(padding="reflection").apply(x, torch.tensor([[2.0, 0.0]])).squeeze()
        tensor([0.2000, 0.1000, 0.1000, 0.2000])
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "pixels"

    budget: float = attrs.field(default=4, validator=_whole_pixels)
    padding: Padding = "zeros"

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random shifts (n, 2) in whole pixels, (right, down), each uniform within +-budget
        times the strength."""
        return whole_shifts(n, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return a grid of at most ``points`` ** 2 shifts in whole pixels, (right, down): (G, 2),
        or (G, N, 2) for strengths (N,)."""
        return shift_lattice(self.budget, strength, points)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return images NCHW moved by shifts (N, 2) in whole pixels, (right, down)."""
        return shift(x_NCHW, parameters_NP, self.padding)


@attrs.frozen(kw_only=True)
class Roll(Parametric):
    """Shift each image cyclically by random distances: pixels that leave at one side enter at the
    other.

    The shifts right and down are each uniform among the whole numbers of pixels within budget
    times the strength.

    Args:
        budget: the largest shift along an axis, in whole pixels, from 0 to 10,000.

    Raises:
        ValueError: a value out of range.

    Example:
        >>> x = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(1, 1, 1, 4)
        >>> Roll(budget=2).apply(x, torch.tensor([[1.0, 0.0]])).squeeze()
        tensor([0.4000, 0.1000, 0.2000, 0.3000])
    """

    kind: ClassVar[PerturbationKind] = "spatial"
    unit: ClassVar[str] = "pixels"

    budget: float = attrs.field(validator=_whole_pixels)

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random shifts (n, 2) in whole pixels, (right, down), each uniform within +-budget
        times the strength."""
        return whole_shifts(n, self.budget, strength, generator)

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return a grid of at most ``points`` ** 2 shifts in whole pixels, (right, down): (G, 2),
        or (G, N, 2) for strengths (N,)."""
        return shift_lattice(self.budget, strength, points)

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return images NCHW moved cyclically by shifts (N, 2) in whole pixels, (right, down)."""
        return shift(x_NCHW, parameters_NP, "wrap")
