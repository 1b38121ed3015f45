"""Gradient attacks within a norm ball: pure functions first, then the perturbations `pgd`, `fgsm`.

eps_N111 is the radius of each image's ball, in [0, 1] pixel units, shaped to broadcast over NCHW.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import and_, ge, gt, le, optional
from torch import Tensor

from curricula.interfaces import (
    AttackLoss,
    Guarantee,
    Norm,
    PerturbationKind,
    Strength,
    Victim,
)
from curricula.losses import ATTACK_LOSSES, LossName, badness

LARGEST = 1e6  # far beyond any image, far below float32's end
_in_pixel_units = and_(ge(0.0), le(LARGEST))


def radii(strength: Strength, budget: float, x_NCHW: Tensor) -> Tensor:
    """eps_N111 of images: the budget times the strength of each."""
    if isinstance(strength, Tensor):
        return (strength.to(x_NCHW) * budget).reshape(-1, 1, 1, 1)
    return x_NCHW.new_full((len(x_NCHW), 1, 1, 1), strength * budget)


def l2_norm(x_NCHW: Tensor) -> Tensor:
    """The Euclidean norm of each image, (N, 1, 1, 1)."""
    norm: Tensor = torch.linalg.vector_norm(x_NCHW, dim=(1, 2, 3), keepdim=True)
    return norm


def project(adversarial_NCHW: Tensor, x_NCHW: Tensor, eps_N111: Tensor, norm: Norm) -> Tensor:
    """The nearest image of the eps-ball about x, cut to [0, 1]: what it returns is in both."""
    if norm == "linf":
        inside = adversarial_NCHW.clamp(x_NCHW - eps_N111, x_NCHW + eps_N111)
    else:
        delta = adversarial_NCHW - x_NCHW
        scale = eps_N111 / l2_norm(delta).clamp_min(1e-12)
        inside = x_NCHW + delta * scale.clamp_max(1)
    # x lies in [0, 1], so cutting moves every pixel towards x: the ball is not left again.
    return inside.clamp_(0, 1)


def random_start(
    x_NCHW: Tensor, eps_N111: Tensor, norm: Norm, generator: torch.Generator
) -> Tensor:
    """A random image of the ball: uniform in the l-inf ball; in l-2 uniform in direction and in
    distance from the centre."""
    if norm == "linf":
        noise = torch.rand(x_NCHW.shape, generator=generator, device=x_NCHW.device) * 2 - 1
        return project(x_NCHW + eps_N111 * noise, x_NCHW, eps_N111, norm)
    noise = torch.randn(x_NCHW.shape, generator=generator, device=x_NCHW.device)
    distance = torch.rand((len(x_NCHW), 1, 1, 1), generator=generator, device=x_NCHW.device)
    step = noise / l2_norm(noise).clamp_min(1e-12) * (distance * eps_N111)
    return project(x_NCHW + step, x_NCHW, eps_N111, norm)


def steepest(gradient_NCHW: Tensor, norm: Norm) -> Tensor:
    """The direction of steepest ascent, of length 1 in the norm."""
    if norm == "linf":
        return gradient_NCHW.sign()
    # A confident model's gradient may be tiny: scale it up first, or its norm would be cut off.
    largest = gradient_NCHW.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = gradient_NCHW / torch.where(largest > 0, largest, 1)
    return scaled / l2_norm(scaled).clamp_min(1e-12)


def ascend(
    x_NCHW: Tensor,
    start_NCHW: Tensor,
    eps_N111: Tensor,
    *,
    gradient: Callable[[Tensor], Tensor],
    norm: Norm,
    step_N111: Tensor,
    steps: int,
) -> Tensor:
    """Projected gradient ascent; the last iterate, as Madry et al. 2018 and torchattacks have it.

    Args:
        x_NCHW: the centre of each ball.
        start_NCHW: where the ascent starts.
        eps_N111: the radius of each ball.
        gradient: of the loss, in the image.
        norm: of the ball and of the step.
        step_N111: length of a step, in the norm, in [0, 1] pixel units.
        steps: how many.
    """
    adversarial = start_NCHW
    for _ in range(steps):
        direction = steepest(gradient(adversarial), norm)
        adversarial = project(adversarial + step_N111 * direction, x_NCHW, eps_N111, norm)
    return adversarial


@attrs.frozen(kw_only=True)
class PGD:
    """`pgd`: projected gradient descent on the model's loss (Madry et al. 2018, section 2.1).

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more.
        norm: ``linf`` or ``l2``.
        steps: gradient steps of each restart, 0 or more.
        step: length of a step at any strength, in [0, 1] pixel units; rather than ``rel_step``.
        rel_step: length of a step as a share of the present radius (budget x strength); by default
            2.5 / steps, as Madry et al. take it.
        random_start: start at a random image of the ball rather than at x.
        restarts: independent runs; per image the worst for the model is kept, misclassified
            before correct, then by cross-entropy.
        loss: ``ce``, ``kl``, ``dlr``, or ``default``: the objective's own in training, ``ce`` in a
            threat.

    Raises:
        ValueError: an argument out of range; both ``step`` and ``rel_step``; several restarts
            from the same point; ``kl`` from the image itself, where its gradient is zero.
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=_in_pixel_units)
    norm: Norm = "linf"
    steps: int = attrs.field(default=10, validator=ge(0))
    step: float | None = attrs.field(
        default=None,
        validator=optional(and_(gt(0.0), le(LARGEST))),
    )
    rel_step: float | None = attrs.field(validator=optional(gt(0)))
    random_start: bool = True
    restarts: int = attrs.field(default=1, validator=ge(1))
    loss: LossName = "default"

    @rel_step.default
    def _rel_step_default(self) -> float | None:
        return None if self.step is not None or self.steps == 0 else 2.5 / self.steps

    def __attrs_post_init__(self) -> None:
        if self.step is not None and self.rel_step is not None:
            raise ValueError("step and rel_step contradict each other; give one of them")
        if self.step is None and self.rel_step is None and self.steps > 0:
            raise ValueError("rel_step is none and step is none; give one of them")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts need random_start=true: they would all be the same")
        if self.loss == "kl" and not self.random_start:
            raise ValueError("loss=kl needs random_start=true: at the image its gradient is zero")

    @property
    def unit(self) -> Norm:
        return self.norm

    @property
    def guarantee(self) -> Guarantee:
        return Guarantee(norm=self.norm, radius=self.budget)

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
            loss = _named(self.loss)
            best = self._once(x_NCHW, y_N, eps, loss, victim, generator)
            if self.restarts == 1:
                return best
            badness_N = badness(victim.logits(best), y_N)
            for _ in range(self.restarts - 1):
                other = self._once(x_NCHW, y_N, eps, loss, victim, generator)
                other_badness_N = badness(victim.logits(other), y_N)
                better = other_badness_N > badness_N
                best = torch.where(better[:, None, None, None], other, best)
                badness_N = torch.maximum(badness_N, other_badness_N)
            return best

    def _once(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        loss: AttackLoss | None,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        if self.random_start:
            start = random_start(x_NCHW, eps_N111, self.norm, generator)
        else:
            start = x_NCHW.clone()
        if self.step is not None:
            step_N111 = torch.full_like(eps_N111, self.step)
        else:
            step_N111 = eps_N111 * (self.rel_step or 0)
        return ascend(
            x_NCHW,
            start,
            eps_N111,
            gradient=lambda x: victim.gradient(x, y_N, loss)[0],
            norm=self.norm,
            step_N111=step_N111,
            steps=self.steps,
        )


@attrs.frozen(kw_only=True)
class FGSM:
    """`fgsm`: one l-inf step of the whole budget along the sign of the gradient, from the image
    itself (Goodfellow et al. 2015, section 4).

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, 0 or more.
        loss: ``ce`` or ``dlr``, under any objective: the gradient of a KL from the image itself is
            zero there.
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    unit: ClassVar[str] = "linf"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=_in_pixel_units)
    loss: Literal["ce", "dlr"] = "ce"

    @property
    def guarantee(self) -> Guarantee:
        return Guarantee(norm="linf", radius=self.budget)

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
            return ascend(
                x_NCHW,
                x_NCHW,
                eps,
                gradient=lambda x: victim.gradient(x, y_N, ATTACK_LOSSES[self.loss])[0],
                norm="linf",
                step_N111=eps,
                steps=1,
            )


def _named(loss: LossName) -> AttackLoss | None:
    return None if loss == "default" else ATTACK_LOSSES[loss]
