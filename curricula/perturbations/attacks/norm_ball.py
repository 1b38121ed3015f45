"""Norm balls about images, clipped to [0, 1]: the building blocks of every pixel attack.

eps_N111 is the radius of each image's ball, in [0, 1] pixel units, shaped to broadcast over NCHW.
At radius 0 each function returns the image itself.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from curricula.interfaces import (
    Norm,
    NormBound,
    PerturbationKind,
    Strength,
    Victim,
    strength_per_image,
)
from curricula.victim.averaged import averaged


def radii(strength: Strength, budget: float, x_NCHW: Tensor) -> Tensor:
    """Return the radius of each image's ball, budget times strength, as eps_N111 in [0, 1] pixel
    units.

    >>> x = torch.zeros(2, 3, 8, 8)
    >>> radii(torch.tensor([0.5, 1.0]), budget=0.2, x_NCHW=x).flatten()
    tensor([0.1000, 0.2000])
    """
    strength = strength_per_image(strength, x_NCHW)
    if isinstance(strength, Tensor):
        return strength * budget
    return x_NCHW.new_full((len(x_NCHW), 1, 1, 1), strength * budget)


class BallAttack:
    """Base of the attacks within a norm ball, whose radius is the budget times the strength.

    A subclass implements `attack` and `passes_of_draw`; one that supports several norms has a field
    `norm`, and one that follows gradients a field `eot`.
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float
    norm: Norm = "linf"
    eot: int | None = None

    @property
    def passes_of_draw(self) -> int:
        """Number of passes through the network for an image that the attack does not fool, if each
        gradient is that of one pass."""
        raise NotImplementedError

    @property
    def passes(self) -> int:
        """Number of passes through the network for an image that the attack does not fool."""
        return self.passes_of_draw * (self.eot or 1)

    @property
    def unit(self) -> Norm:
        return self.norm

    @property
    def norm_bound(self) -> NormBound:
        return NormBound(norm=self.norm, radius=self.budget)

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        """Return an adversarial image for each image, NCHW, within that image's ball and [0, 1].

        Gradients are not recorded while it runs.
        """
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
            eps = radii(strength, self.budget, x_NCHW)
            victim = averaged(victim, self.eot or 1)
            return self.attack(x_NCHW, y_N, eps, victim=victim, generator=generator)


def per_image(which_N: Tensor, a_NCHW: Tensor, b_NCHW: Tensor) -> Tensor:
    """Return ``a_NCHW`` for the images that the mask names, ``b_NCHW`` for the others, NCHW."""
    return torch.where(which_N[:, None, None, None], a_NCHW, b_NCHW)


def l2_norm(x_NCHW: Tensor) -> Tensor:
    """Return the Euclidean norm of each image, (N, 1, 1, 1)."""
    norm: Tensor = torch.linalg.vector_norm(x_NCHW, dim=(1, 2, 3), keepdim=True)
    return norm


def project(adversarial_NCHW: Tensor, x_NCHW: Tensor, eps_N111: Tensor, norm: Norm) -> Tensor:
    """Return each adversarial image projected into both the eps-ball about x and [0, 1], NCHW.

    In l-inf and l-1 the result is the nearest such image. In l-2 it is the nearest image of the
    ball, then clipped to [0, 1], as is usual.

    >>> x = torch.full((1, 1, 1, 2), 0.5)
    >>> away = torch.tensor([0.9, 0.6]).reshape(x.shape)
    >>> project(away, x, torch.tensor(0.2).reshape(1, 1, 1, 1), "linf").flatten()
    tensor([0.7000, 0.6000])
    """
    if norm == "l1":
        return _project_l1(adversarial_NCHW, x_NCHW, eps_N111)
    if norm == "linf":
        inside = adversarial_NCHW.clamp(x_NCHW - eps_N111, x_NCHW + eps_N111)
    else:
        delta = adversarial_NCHW - x_NCHW
        scale = eps_N111 / l2_norm(delta).clamp_min(1e-12)
        inside = x_NCHW + delta * scale.clamp_max(1)
    # x lies in [0, 1], so clipping moves every pixel towards x and cannot leave the ball.
    return inside.clamp_(0, 1)


def bounds(x_NCHW: Tensor, eps_N111: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest image, both NCHW, of the l-inf ball clipped to [0, 1].

    Clamping between them equals `project`, bit for bit.
    """
    return (x_NCHW - eps_N111).clamp_(0, 1), (x_NCHW + eps_N111).clamp_(0, 1)


def _project_l1(adversarial_NCHW: Tensor, x_NCHW: Tensor, eps_N111: Tensor) -> Tensor:
    """Return each image projected into the l-1 ball within [0, 1], NCHW (Croce and Hein 2021, "Mind
    the box!", prop. 2.1).

    Let d be the distance from x that a pixel is to move, and g the distance that [0, 1] allows on
    that side. The nearest image moves it by clamp(d - t, 0, g), where t >= 0 is the same for the
    whole image: the smallest for which these distances sum to eps or less.
    """
    delta = adversarial_NCHW - x_NCHW
    d = delta.abs()
    g = torch.where(delta > 0, 1 - x_NCHW, x_NCHW)
    t = _threshold(d.flatten(1), g.flatten(1), eps_N111.flatten(1)).reshape(-1, 1, 1, 1)
    moved = torch.minimum((d - t).clamp_min(0), g)
    # The scale differs from 1 by rounding alone.
    scale = eps_N111 / moved.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    wanted = (moved * scale.clamp_max(1)).copysign(delta)
    inside = (x_NCHW + wanted).clamp(0, 1)
    # Over many pixels even the rounding of x + delta adds up: round towards x.
    outside = (inside - x_NCHW).abs() > wanted.abs()
    return torch.where(outside, torch.nextafter(inside, x_NCHW), inside)


def _threshold(d_ND: Tensor, g_ND: Tensor, eps_N1: Tensor) -> Tensor:
    """Return t_N1, by which the distance of every pixel of an image is reduced to reach the l-1
    ball (t in `_project_l1`).

    The sum of the distances is piecewise linear and decreasing in t. The distance of a pixel
    starts to shrink at t = d - g and reaches 0 at t = d; between two such knots the slope is the
    number of pixels whose distance is shrinking.
    """
    begin_end = torch.cat([(d_ND - g_ND).clamp_min(0), d_ND], dim=1)
    knots, order = begin_end.sort(dim=1)
    slope = torch.where(order < d_ND.shape[1], 1.0, -1.0).cumsum(dim=1)[:, :-1]
    decreases = slope * knots.diff(dim=1)
    # Summed from the far end, where the sum is 0, so that small sums stay precise.
    total = torch.cat([decreases.flip(1).cumsum(1).flip(1), torch.zeros_like(eps_N1)], dim=1)
    last_N1 = ((total > eps_N1).sum(dim=1, keepdim=True) - 1).clamp_min(0)
    excess = (total.gather(1, last_N1) - eps_N1).clamp_min(0)
    steepness = slope.gather(1, last_N1)
    t = knots.gather(1, last_N1) + excess / steepness.clamp_min(1)
    return torch.where(total[:, :1] > eps_N1, t, 0)


def random_start(
    x_NCHW: Tensor, eps_N111: Tensor, norm: Norm, generator: torch.Generator
) -> Tensor:
    """Return a random image from the ball about each image, clipped to [0, 1], NCHW.

    Before clipping it is uniform in the l-inf and l-1 balls; in l-2 it is uniform in direction and
    in distance from the centre.
    """
    if norm == "linf":
        noise = torch.rand(x_NCHW.shape, generator=generator, device=x_NCHW.device) * 2 - 1
        return project(x_NCHW + eps_N111 * noise, x_NCHW, eps_N111, norm)
    if norm == "l1":
        return project(
            x_NCHW + eps_N111 * _in_unit_l1_ball(x_NCHW, generator), x_NCHW, eps_N111, norm
        )
    noise = torch.randn(x_NCHW.shape, generator=generator, device=x_NCHW.device)
    distance = torch.rand((len(x_NCHW), 1, 1, 1), generator=generator, device=x_NCHW.device)
    step = noise / l2_norm(noise).clamp_min(1e-12) * (distance * eps_N111)
    return project(x_NCHW + step, x_NCHW, eps_N111, norm)


def _in_unit_l1_ball(x_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Return a uniformly random point of the unit l-1 ball for each image, NCHW.

    Exponential variables, divided by the sum of themselves and of one more, are uniform in the
    solid simplex (Devroye 1986, chapter V, theorem 2.2); random signs spread them over the ball.
    """
    sizes = x_NCHW.new_empty(x_NCHW.shape).exponential_(generator=generator)
    spare = x_NCHW.new_empty((len(x_NCHW), 1, 1, 1)).exponential_(generator=generator)
    signs = torch.rand(x_NCHW.shape, generator=generator, device=x_NCHW.device) - 0.5
    return (sizes / (sizes.sum(dim=(1, 2, 3), keepdim=True) + spare)).copysign(signs)


def steepest(gradient_NCHW: Tensor, norm: Literal["linf", "l2"]) -> Tensor:
    """Return each image's direction of steepest ascent, NCHW, of length 1 in the norm."""
    if norm == "linf":
        return gradient_NCHW.sign()
    scaled = rescaled(gradient_NCHW)
    return scaled / l2_norm(scaled).clamp_min(1e-12)


def rescaled(gradient_NCHW: Tensor) -> Tensor:
    """Return the gradient scaled so that the largest entry of each image has size 1.

    A confident model's gradient is so small that its norm would underflow.
    """
    largest = gradient_NCHW.abs().amax(dim=(1, 2, 3), keepdim=True)
    return gradient_NCHW / torch.where(largest > 0, largest, 1)


def sparse_step(
    gradient_NCHW: Tensor, adversarial_NCHW: Tensor, step_N111: Tensor, share: float
) -> Tensor:
    """Return the step NCHW of a given l-1 length along which the loss rises most, given that it
    stays in [0, 1] and spreads over a share of the values.

    No value moves by more than the length divided by ``share`` of the number of values (at least
    one). If [0, 1] leaves room, this is the step of SLIDE (Tramer and Boneh 2019, section 2),
    spread evenly over the values with the largest gradients. If not, the next values take the rest.
    SLIDE drops the rest; if ``share`` is below the share of pixels that the best change moves, its
    later steps only restore what the projection took from the first ones.

    Args:
        gradient_NCHW: the gradient to ascend.
        adversarial_NCHW: where the step starts.
        step_N111: l-1 length of the step, in [0, 1] pixel units.
        share: share of the values (pixels times channels) to move, above 0 to 1.
    """
    size, order = gradient_NCHW.abs().flatten(1).sort(dim=1, descending=True, stable=True)
    room = torch.where(gradient_NCHW > 0, 1 - adversarial_NCHW, adversarial_NCHW)
    step_N1 = step_N111.flatten(1)
    most = step_N1 / max(1, round(share * size.shape[1]))
    wanted = torch.minimum(room.flatten(1).gather(1, order), most) * (size > 0)
    before = wanted.cumsum(dim=1) - wanted
    spent = torch.minimum(wanted, (step_N1 - before).clamp_min(0))
    step = torch.zeros_like(spent).scatter(1, order, spent).reshape(gradient_NCHW.shape)
    return step.copysign(gradient_NCHW)
