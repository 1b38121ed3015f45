"""Projected gradient ascent within a norm ball: the perturbation `pgd`."""

import math
from typing import Any, Literal

import attrs
import torch
from attrs.validators import ge, optional
from torch import Tensor

from curricula.interfaces import (
    AttackLoss,
    Norm,
    Strength,
    Victim,
)
from curricula.losses import ATTACK_LOSSES, LossName
from curricula.perturbations.attacks.active_set import ActiveSet
from curricula.perturbations.attacks.norm_ball import (
    BallAttack,
    bounds,
    project,
    radii,
    random_start,
    sparse_step,
    steepest,
)
from curricula.perturbations.attacks.restarts import passes_of, worst_of
from curricula.perturbations.validators import above_zero, between, valid_budget, valid_eot
from curricula.victim.averaged import averaged

L1_SHARE = 0.01  # share of the values that an l-1 step moves, as in Tramer and Boneh 2019
MAX_AUTO_STEPS = 1e6  # steps of ``steps=auto`` over the length of the budget
MAX_TAU = 1_000_000  # steps
STEPS_ROUNDING = 1e-6  # share; steps that exceed a whole number by less are rounded down to it


def ascend(
    x_NCHW: Tensor,
    y_N: Tensor,
    start_NCHW: Tensor,
    eps_N111: Tensor,
    *,
    victim: Victim,
    loss: AttackLoss | None,
    norm: Norm,
    step_N111: Tensor,
    steps: int | Tensor,
    l1_share: float = L1_SHARE,
    tau: int | None = None,
) -> Tensor:
    """Return the last iterate of projected gradient ascent, NCHW (Madry et al. 2018, section 2.1).

    Args:
        x_NCHW: the centre of each ball.
        y_N: the labels.
        start_NCHW: starting points, within the balls.
        eps_N111: the radius of each ball, in [0, 1] pixel units.
        victim: the model.
        loss: the loss to ascend; None for the victim's own.
        norm: norm of the ball and of the step.
        step_N111: length of a step, in the norm, in [0, 1] pixel units.
        steps: number of steps, or one number per image (N,); an image that has taken its steps
            costs nothing more.
        l1_share: as for `sparse_step`.
        tau: if given, an image stops once it is misclassified and has taken ``tau`` steps while
            misclassified (Zhang et al. 2020, algorithm 1); it then costs nothing more.
    """
    active = ActiveSet(y_N, steps, tau)
    x, y, eps, step = (active.sort(each) for each in (x_NCHW, y_N, eps_N111, step_N111))
    adversarial = active.sort(start_NCHW).clone()
    lowest, highest = bounds(x, eps) if norm == "linf" else (x, x)

    def step_and_project(current: Tensor, gradient: Tensor, at: slice | Tensor) -> Tensor:
        if norm == "linf":  # the same as below, in fewer passes over memory
            following = torch.addcmul(current, step[at], steepest(gradient, norm))
            return following.clamp_(lowest[at], highest[at])
        if norm == "l2":
            following = current + step[at] * steepest(gradient, norm)
        else:
            following = current + sparse_step(gradient, current, step[at], l1_share)
        return project(following, x[at], eps[at], norm)

    for at in active:
        current = adversarial[at]
        gradient, _, logits = victim.subset(active.order[at]).gradient(current, y[at], loss)
        following = step_and_project(current, gradient, at)
        if tau is not None:
            stays = active.drop_misclassified(logits.argmax(1) != y[at])
            following = torch.where(stays[:, None, None, None], following, current)
        adversarial[at] = following
    return active.unsort(adversarial)


def _whole_or_auto(instance: "PGD", attribute: Any, value: int | str) -> None:
    if not isinstance(value, str):
        ge(0)(instance, attribute, value)  # 0 is the start alone; expressions refuse it
    elif value != "auto":
        raise ValueError(f"steps must be a whole number or auto, not {value!r}")


@attrs.frozen(kw_only=True)
class PGD(BallAttack):
    """Ascend the model's loss by projected gradient steps within a norm ball (Madry et al. 2018,
    section 2.1).

    As a threat in l-1 and l-2, ``apgd`` with the same norm is stronger: under ``pgd(norm=l1)`` a
    network that was not trained in l-1 looks 8 to 25 percentage points more robust.

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more; in linf at most 1.
        norm: ``linf``, ``l2`` or ``l1`` (the sparse steps of SLIDE, Tramer and Boneh 2019, and the
            projection of Croce and Hein 2021).
        steps: gradient steps of each restart, 1 or more; or ``auto``: in proportion to the
            strength, rounded up, and at strength 1 enough to go 2.5 times the budget.
        step: length of a step at any strength, in [0, 1] pixel units; give this or ``rel_step``.
            With ``steps=auto`` a quarter of the budget by default, which makes 10 steps.
        rel_step: length of a step as a share of the current radius (budget x strength); by default
            2.5 / steps, as in Madry et al.
        random_start: start at a random image of the ball rather than at x.
        restarts: number of independent runs, 1 or more; each image keeps the result that is worst
            for the model: misclassified before correct, then by cross-entropy.
        loss: ``ce``, ``kl``, ``dlr``, or ``default``: the objective's own in training, ``ce`` in a
            threat.
        l1_share: with ``norm=l1``, the share of all values (pixels times channels) that a step
            moves, above 0 to 1; by default 0.01.
        tau: number of steps, 0 to 1e6, that an image still takes once it is misclassified
            ("friendly" adversarial training, Zhang et al. 2020); this weakens the attack. None:
            images never stop early.
        eot: passes whose gradients are averaged at each step, 1 to 10,000, for a network that draws
            random numbers ("expectation over transformation", Athalye et al. 2018). None: one.

    Raises:
        ValueError: an argument out of range; both ``step`` and ``rel_step``; ``rel_step`` with
            ``steps=auto``; several restarts from the same point, or with ``tau``; ``kl`` from the
            image itself, where its gradient is zero; ``l1_share`` in another norm.

    Example:
        No image changes by more than the budget times its own strength.

        >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 2])
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
        >>> strength, generator = torch.tensor([0.0, 0.5, 1.0]), torch.Generator()
        >>> attack = PGD(budget=0.1, steps=5)
        >>> adversarial = attack(x, y, strength=strength, victim=victim, generator=generator)
        >>> (adversarial - x).abs().amax((1, 2, 3))
        tensor([0.0000, 0.0500, 0.1000])
    """

    budget: float = attrs.field(validator=valid_budget)
    norm: Norm = "linf"
    steps: int | Literal["auto"] = attrs.field(default=10, validator=_whole_or_auto)
    step: float | None = attrs.field(validator=optional(above_zero()))
    rel_step: float | None = attrs.field(validator=optional(above_zero()))
    random_start: bool = True
    restarts: int = attrs.field(default=1, validator=ge(1))
    loss: LossName = "default"
    l1_share: float | None = attrs.field(validator=optional(above_zero(1.0)))
    tau: int | None = attrs.field(default=None, validator=optional(between(0, MAX_TAU)))
    eot: int | None = attrs.field(default=None, validator=valid_eot)

    @step.default
    def _step_default(self) -> float | None:
        return self.budget / 4 if self.steps == "auto" and self.budget > 0 else None

    @rel_step.default
    def _rel_step_default(self) -> float | None:
        if self.step is not None or isinstance(self.steps, str) or self.steps == 0:
            return None
        return 2.5 / self.steps

    @l1_share.default
    def _l1_share_default(self) -> float | None:
        return L1_SHARE if self.norm == "l1" else None

    def __attrs_post_init__(self) -> None:
        if self.steps == "auto" and self.budget > MAX_AUTO_STEPS * (self.step or self.budget):
            raise ValueError(
                f"step must be a millionth of the budget or more with steps=auto, not {self.step:g}"
            )
        if self.steps == "auto" and self.rel_step is not None:
            raise ValueError("steps=auto counts steps of one length; give step, not rel_step")
        if self.step is not None and self.rel_step is not None:
            raise ValueError("step and rel_step contradict each other; give one of them")
        takes_no_step = self.steps == 0 or (self.steps == "auto" and self.budget == 0)
        if self.step is None and self.rel_step is None and not takes_no_step:
            raise ValueError("rel_step is none and step is none; give one of them")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts need random_start=true: they would all be the same")
        if self.restarts > 1 and self.tau is not None:
            raise ValueError("tau stops early and restarts search on; give one of them")
        if self.loss == "kl" and not self.random_start:
            raise ValueError("loss=kl needs random_start=true: at the image its gradient is zero")
        if self.l1_share is not None and self.norm != "l1":
            raise ValueError(f"l1_share is for norm=l1, not {self.norm}")

    @property
    def passes_of_draw(self) -> int:
        return passes_of(self.full_steps, self.restarts) + reference_passes(self.loss)

    @property
    def full_steps(self) -> int:
        """Number of gradient steps in one restart at strength 1."""
        if not isinstance(self.steps, str):
            return self.steps
        if self.step is None:
            return 0  # the budget is 0
        return math.ceil(2.5 * self.budget / self.step * (1 - STEPS_ROUNDING))

    def steps_at(self, strength: Strength) -> int | Tensor:
        """Return the number of gradient steps in one restart at a strength; (N,) if ``steps=auto``
        and the strength is (N,).

        >>> PGD(budget=0.1, steps="auto").steps_at(torch.tensor([0.0, 0.25, 1.0]))
        tensor([ 0,  3, 10])
        """
        if not isinstance(self.steps, str):
            return self.steps
        if isinstance(strength, Tensor):
            return (strength * (self.full_steps * (1 - STEPS_ROUNDING))).ceil().long()
        return math.ceil(self.full_steps * strength * (1 - STEPS_ROUNDING))

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
            victim = averaged(victim, self.eot or 1)
            eps = radii(strength, self.budget, x_NCHW)
            steps = self.steps_at(strength)
            if self.step is not None:
                length = torch.full_like(eps, self.step)
            else:
                length = eps * (self.rel_step or 0)

            def draw() -> Tensor:
                if not self.random_start:
                    return x_NCHW
                return random_start(x_NCHW, eps, self.norm, generator)

            def run(index: Tensor, start: Tensor) -> Tensor:
                return ascend(
                    x_NCHW[index],
                    y_N[index],
                    start,
                    eps[index],
                    victim=victim.subset(index),
                    loss=resolve_loss(self.loss),
                    norm=self.norm,
                    step_N111=length[index],
                    steps=steps[index] if isinstance(steps, Tensor) else steps,
                    l1_share=self.l1_share or L1_SHARE,
                    tau=self.tau,
                )

            return worst_of(draw, run, self.restarts, y_N, victim)


def resolve_loss(name: LossName) -> AttackLoss | None:
    """Return the attack loss with this name; None for ``default``, the victim's own loss."""
    return None if name == "default" else ATTACK_LOSSES[name]


def reference_passes(name: LossName) -> int:
    """Return how many passes per image an attack loss needs for its reference logits: 0 or 1."""
    return 1 if name == "kl" else 0
