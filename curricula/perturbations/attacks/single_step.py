"""Attacks of one gradient step in the l-inf ball: `fgsm`, `rfgsm` and `nfgsm`."""

from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import optional
from torch import Tensor

from curricula.interfaces import NormBound, Victim
from curricula.losses import ATTACK_LOSSES, LossName
from curricula.perturbations.attacks.norm_ball import BallAttack, random_start
from curricula.perturbations.attacks.pgd import ascend, reference_passes, resolve_loss
from curricula.perturbations.validators import above_zero, valid_budget, valid_eot


@attrs.frozen(kw_only=True)
class FGSM(BallAttack):
    """Move each image by the whole budget along the sign of the gradient (Goodfellow et al. 2015,
    section 4).

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, from 0 to 1.
        loss: ``ce`` or ``dlr``, under any objective: the KL divergence from the image itself has a
            zero gradient there.
        eot: as for `pgd`.

    Raises:
        ValueError: a value out of range.

    Example:
        Every pixel with a gradient moves by the budget times the strength.

        >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 2])
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
        >>> strength, generator = torch.tensor([0.0, 0.5, 1.0]), torch.Generator()
        >>> attack = FGSM(budget=0.1)
        >>> adversarial = attack(x, y, strength=strength, victim=victim, generator=generator)
        >>> (adversarial - x).abs().mean((1, 2, 3))
        tensor([0.0000, 0.0500, 0.1000])
    """

    budget: float = attrs.field(validator=valid_budget)
    loss: Literal["ce", "dlr"] = "ce"
    eot: int | None = attrs.field(default=None, validator=valid_eot)

    @property
    def passes_of_draw(self) -> int:
        return 1

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
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
    """Take one gradient step from a random image of the l-inf ball and project back into the ball
    (RS-FGSM, Wong et al. 2020, "Fast is better than free", algorithm 3).

    Args:
        budget: radius of the l-inf ball, in [0, 1] pixel units, from 0 to 1.
        rel_step: length of the step as a share of the current radius, above 0.
        bernoulli: start where each value is moved up or down by this share of the current radius,
            above 0 to 1, with equal probability: with 0.5 and ``rel_step=1`` the attack of GAT and
            NuAT (Sriramanan et al. 2020 and 2021). None: start uniformly in the ball.
        loss: as for `pgd`.
        eot: as for `pgd`.

    Raises:
        ValueError: a value out of range.

    Example:
        A random start and a step longer than the radius still end within the ball.

        >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 2])
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
        >>> attack = RandomFGSM(budget=0.1, rel_step=1.25)
        >>> adversarial = attack(x, y, strength=0.5, victim=victim, generator=torch.Generator())
        >>> (adversarial - x).abs().amax((1, 2, 3))
        tensor([0.0500, 0.0500, 0.0500])
    """

    budget: float = attrs.field(validator=valid_budget)
    rel_step: float = attrs.field(default=1.25, validator=above_zero())
    bernoulli: float | None = attrs.field(default=None, validator=optional(above_zero(1.0)))
    loss: LossName = "default"
    eot: int | None = attrs.field(default=None, validator=valid_eot)

    @property
    def passes_of_draw(self) -> int:
        return 1 + reference_passes(self.loss)

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        if self.bernoulli is None:
            start = random_start(x_NCHW, eps_N111, "linf", generator)
        else:
            up = torch.rand(x_NCHW.shape, generator=generator, device=x_NCHW.device) < 0.5
            move = self.bernoulli * eps_N111
            start = (x_NCHW + torch.where(up, move, -move)).clamp_(0, 1)
        return ascend(
            x_NCHW,
            y_N,
            start,
            eps_N111,
            victim=victim,
            loss=resolve_loss(self.loss),
            norm="linf",
            step_N111=self.rel_step * eps_N111,
            steps=1,
        )


@attrs.frozen(kw_only=True)
class NoisyFGSM(BallAttack):
    """Add strong uniform noise, take one gradient step from there and clip to [0, 1], without a
    projection into the ball (N-FGSM, de Jorge et al. 2022, "Make some noise", algorithm 1).

    It leaves the ball of its budget by design, so it is for training only; a change stays within
    (noise + rel_step) times the budget.

    Args:
        budget: the l-inf radius to train for, in [0, 1] pixel units, from 0 to 1.
        noise: range of the uniform noise as a multiple of the current radius, above 0 (the
            paper's k).
        rel_step: length of the step as a share of the current radius, above 0 (the paper's alpha /
            eps).
        loss: as for `pgd`.
        eot: as for `pgd`.

    Raises:
        ValueError: a value out of range.

    Example:
        The norm bound covers the noise and the step: by default three times the budget.

        >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 2])
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
        >>> attack = NoisyFGSM(budget=0.1)
        >>> adversarial = attack(x, y, strength=1.0, victim=victim, generator=torch.Generator())
        >>> 0.1 < float((adversarial - x).abs().max()) <= attack.norm_bound.radius
        True
    """

    training_only: ClassVar[bool] = True

    budget: float = attrs.field(validator=valid_budget)
    noise: float = attrs.field(default=2.0, validator=above_zero())
    rel_step: float = attrs.field(default=1.0, validator=above_zero())
    loss: LossName = "default"
    eot: int | None = attrs.field(default=None, validator=valid_eot)

    @property
    def passes_of_draw(self) -> int:
        return 1 + reference_passes(self.loss)

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
        noisy = random_start(x_NCHW, self.noise * eps_N111, "linf", generator)
        gradient, _, _ = victim.gradient(noisy, y_N, resolve_loss(self.loss))
        return (noisy + self.rel_step * eps_N111 * gradient.sign()).clamp_(0, 1)
