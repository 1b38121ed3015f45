"""Attacks of one gradient step in the l-inf ball: `fgsm`, `rfgsm`, `nfgsm`."""

from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import and_, gt, le
from torch import Tensor

from curricula.interfaces import Guarantee, PerturbationKind, Strength, Victim
from curricula.losses import ATTACK_LOSSES, LossName
from curricula.perturbations.ball import LARGEST, a_budget, radii, random_start
from curricula.perturbations.pgd import ascend, named


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

    budget: float = attrs.field(validator=a_budget)
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
                y_N,
                x_NCHW,
                eps,
                victim=victim,
                loss=ATTACK_LOSSES[self.loss],
                norm="linf",
                step_N111=eps,
                steps=1,
            )


@attrs.frozen(kw_only=True)
class RandomFGSM:
    """`rfgsm`: one step from a random image of the l-inf ball, projected back on it (RS-FGSM, Wong
    et al. 2020, "Fast is better than free", algorithm 3).

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, 0 or more.
        rel_step: length of the step as a share of the present radius.
        loss: as for `pgd`.
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    unit: ClassVar[str] = "linf"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = False

    budget: float = attrs.field(validator=a_budget)
    rel_step: float = attrs.field(default=1.25, validator=and_(gt(0.0), le(LARGEST)))
    loss: LossName = "default"

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
                y_N,
                random_start(x_NCHW, eps, "linf", generator),
                eps,
                victim=victim,
                loss=named(self.loss),
                norm="linf",
                step_N111=self.rel_step * eps,
                steps=1,
            )


@attrs.frozen(kw_only=True)
class NoisyFGSM:
    """`nfgsm`: strong noise, then one step from there, cut to [0, 1] but to no ball (N-FGSM, de
    Jorge et al. 2022, "Make some noise", algorithm 1).

    It leaves the ball of its budget by design, so it is for training alone; a change stays within
    (noise + rel_step) times the budget.

    Args:
        budget: the eps that is trained for, l-inf, in [0, 1] pixel units, 0 or more.
        noise: the noise is uniform within so many times the present radius (the paper's k).
        rel_step: length of the step as a share of the present radius (the paper's alpha / eps).
        loss: as for `pgd`.
    """

    kind: ClassVar[PerturbationKind] = "pixel"
    unit: ClassVar[str] = "linf"
    channels: ClassVar[frozenset[int] | None] = None
    training_only: ClassVar[bool] = True

    budget: float = attrs.field(validator=a_budget)
    noise: float = attrs.field(default=2.0, validator=and_(gt(0.0), le(LARGEST)))
    rel_step: float = attrs.field(default=1.0, validator=and_(gt(0.0), le(LARGEST)))
    loss: LossName = "default"

    @property
    def guarantee(self) -> Guarantee:
        return Guarantee(norm="linf", radius=(self.noise + self.rel_step) * self.budget)

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
            noisy = random_start(x_NCHW, self.noise * eps, "linf", generator)
            gradient, _, _ = victim.gradient(noisy, y_N, named(self.loss))
            return (noisy + self.rel_step * eps * gradient.sign()).clamp_(0, 1)
