"""Attacks of one gradient step in the l-inf ball: `fgsm`, `rfgsm`, `nfgsm`."""

from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import and_, gt, le
from torch import Tensor

from curricula.interfaces import NormBound, Victim
from curricula.losses import ATTACK_LOSSES, LossName
from curricula.perturbations.attacks.norm_ball import LARGEST, BallAttack, a_budget, random_start
from curricula.perturbations.attacks.pgd import ascend, named


@attrs.frozen(kw_only=True)
class FGSM(BallAttack):
    """`fgsm`: one l-inf step of the whole budget along the sign of the gradient, from the image
    itself (Goodfellow et al. 2015, section 4).

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, 0 or more.
        loss: ``ce`` or ``dlr``, under any objective: the gradient of a KL from the image itself is
            zero there.
    """

    budget: float = attrs.field(validator=a_budget)
    loss: Literal["ce", "dlr"] = "ce"

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        """The images attacked, each within its own radius."""
        return ascend(
            x_NCHW,
            y_N,
            x_NCHW,
            eps_N111,
            victim=victim,
            loss=ATTACK_LOSSES[self.loss],
            norm="linf",
            step_N111=eps_N111,
            steps=1,
        )


@attrs.frozen(kw_only=True)
class RandomFGSM(BallAttack):
    """`rfgsm`: one step from a random image of the l-inf ball, projected back on it (RS-FGSM, Wong
    et al. 2020, "Fast is better than free", algorithm 3).

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, 0 or more.
        rel_step: length of the step as a share of the present radius.
        loss: as for `pgd`.
    """

    budget: float = attrs.field(validator=a_budget)
    rel_step: float = attrs.field(default=1.25, validator=and_(gt(0.0), le(LARGEST)))
    loss: LossName = "default"

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        """The images attacked, each within its own radius."""
        return ascend(
            x_NCHW,
            y_N,
            random_start(x_NCHW, eps_N111, "linf", generator),
            eps_N111,
            victim=victim,
            loss=named(self.loss),
            norm="linf",
            step_N111=self.rel_step * eps_N111,
            steps=1,
        )


@attrs.frozen(kw_only=True)
class NoisyFGSM(BallAttack):
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

    training_only: ClassVar[bool] = True

    budget: float = attrs.field(validator=a_budget)
    noise: float = attrs.field(default=2.0, validator=and_(gt(0.0), le(LARGEST)))
    rel_step: float = attrs.field(default=1.0, validator=and_(gt(0.0), le(LARGEST)))
    loss: LossName = "default"

    @property
    def norm_bound(self) -> NormBound:
        return NormBound(norm="linf", radius=(self.noise + self.rel_step) * self.budget)

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        """The images attacked, each within its own radius."""
        noisy = random_start(x_NCHW, self.noise * eps_N111, "linf", generator)
        gradient, _, _ = victim.gradient(noisy, y_N, named(self.loss))
        return (noisy + self.rel_step * eps_N111 * gradient.sign()).clamp_(0, 1)
