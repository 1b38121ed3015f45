"""The momentum iterative method: the perturbation `mim`."""

from typing import Literal

import attrs
import torch
from attrs.validators import ge
from torch import Tensor

from curricula.interfaces import AttackLoss, Victim
from curricula.losses import ATTACK_LOSSES
from curricula.perturbations.attacks.norm_ball import BallAttack, project, rescaled
from curricula.perturbations.validators import above_zero, between, valid_budget, valid_eot


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
    """Take signed steps along a decaying sum of gradients, each divided by its l-1 norm, and return
    the last iterate, NCHW (MI-FGSM, Dong et al. 2018, algorithm 1).

    Args:
        x_NCHW: the images, where the search starts.
        y_N: the labels.
        eps_N111: the radius of each l-inf ball, in [0, 1] pixel units.
        victim: the model.
        loss: the loss to ascend; None for the victim's own.
        step_N111: length of a step, in [0, 1] pixel units.
        steps: number of steps.
        decay: factor on the sum at each step.
    """
    adversarial, momentum = x_NCHW.clone(), torch.zeros_like(x_NCHW)
    for _ in range(steps):
        # Rescaled first: the norm of tiny entries would underflow. A zero gradient adds 0.
        gradient = rescaled(victim.gradient(adversarial, y_N, loss)[0])
        l1_norm = gradient.abs().sum(dim=(1, 2, 3), keepdim=True)
        momentum = decay * momentum + gradient / l1_norm.clamp_min(1)
        adversarial = project(adversarial + step_N111 * momentum.sign(), x_NCHW, eps_N111, "linf")
    return adversarial


@attrs.frozen(kw_only=True)
class MIM(BallAttack):
    """Take signed gradient steps with momentum in the l-inf ball, from the image itself (the
    momentum iterative method or MI-FGSM, Dong et al. 2018, section 3.1).

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, from 0 to 1.
        steps: gradient steps, 1 or more.
        rel_step: length of a step as a share of the current radius, above 0; by default 1 / steps.
        decay: factor on the momentum at each step, from 0 to 100 (the paper's mu).
        loss: ``ce`` or ``dlr``, under any objective, as for `fgsm`.
        eot: as for `pgd`.

    Raises:
        ValueError: a value out of range.

    Example:
        By default the steps add up to the radius, which each pixel reaches if its sign never flips.

        >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 2])
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
        >>> attack = MIM(budget=0.1, steps=4)
        >>> adversarial = attack(x, y, strength=0.5, victim=victim, generator=torch.Generator())
        >>> (adversarial - x).abs().amax((1, 2, 3))
        tensor([0.0500, 0.0500, 0.0500])
    """

    budget: float = attrs.field(validator=valid_budget)
    steps: int = attrs.field(default=10, validator=ge(1))
    rel_step: float = attrs.field(validator=above_zero())
    decay: float = attrs.field(default=1.0, validator=between(0.0, 100.0))
    loss: Literal["ce", "dlr"] = "ce"
    eot: int | None = attrs.field(default=None, validator=valid_eot)

    @rel_step.default
    def _rel_step_default(self) -> float:
        return 1 / max(self.steps, 1)

    @property
    def passes_of_draw(self) -> int:
        return self.steps

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
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
