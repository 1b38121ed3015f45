"""The momentum iterative method: the perturbation `mim`."""

from typing import Literal

import attrs
import torch
from attrs.validators import and_, ge, gt, le
from torch import Tensor

from curricula.interfaces import AttackLoss, Victim
from curricula.losses import ATTACK_LOSSES
from curricula.perturbations.attacks.norm_ball import (
    LARGEST,
    BallAttack,
    a_budget,
    project,
    rescaled,
)


def ascend_with_momentum(
    x_NCHW: Tensor,
    y_N: Tensor,
    eps_N111: Tensor,
    *,
    victim: Victim,
    loss: AttackLoss | None,
    step_N111: Tensor,
    steps: int,
    decay: float,
) -> Tensor:
    """MI-FGSM (Dong et al. 2018, algorithm 1): signed steps along a decaying sum of gradients, each
    divided by its l-1 norm, from the images themselves.

    Args:
        x_NCHW: the images.
        y_N: the labels.
        eps_N111: the radius of each l-inf ball.
        victim: the model.
        loss: what is ascended.
        step_N111: length of a step.
        steps: how many.
        decay: what is left of the sum after a step.
    """
    adversarial, momentum = x_NCHW.clone(), torch.zeros_like(x_NCHW)
    for _ in range(steps):
        # Rescaled first, so that a gradient of tiny entries has a norm at all. A flat one adds 0.
        gradient = rescaled(victim.gradient(adversarial, y_N, loss)[0])
        l1_norm = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
        momentum = decay * momentum + gradient / l1_norm.clamp_min(1)
        adversarial = project(adversarial + step_N111 * momentum.sign(), x_NCHW, eps_N111, "linf")
    return adversarial


@attrs.frozen(kw_only=True)
class MIM(BallAttack):
    """`mim`: the momentum iterative method, also MI-FGSM (Dong et al. 2018, section 3.1), in the
    l-inf ball, from the image itself.

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, 0 or more.
        steps: gradient steps, 1 or more.
        rel_step: length of a step as a share of the present radius; by default 1 / steps.
        decay: of the momentum, from 0 up (the paper's mu).
        loss: ``ce`` or ``dlr``, under any objective, as for `fgsm`.
    """

    budget: float = attrs.field(validator=a_budget)
    steps: int = attrs.field(default=10, validator=ge(1))
    rel_step: float = attrs.field(validator=and_(gt(0.0), le(LARGEST)))
    decay: float = attrs.field(default=1.0, validator=and_(ge(0.0), le(100.0)))
    loss: Literal["ce", "dlr"] = "ce"

    @rel_step.default
    def _rel_step_default(self) -> float:
        return 1 / max(self.steps, 1)

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
        return ascend_with_momentum(
            x_NCHW,
            y_N,
            eps_N111,
            victim=victim,
            loss=ATTACK_LOSSES[self.loss],
            step_N111=self.rel_step * eps_N111,
            steps=self.steps,
            decay=self.decay,
        )
