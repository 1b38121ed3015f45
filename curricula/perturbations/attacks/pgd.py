"""Projected gradient ascent within a norm ball: the perturbation `pgd`."""

import math
from typing import Any, Literal

import attrs
import torch
from attrs.validators import and_, ge, gt, le, optional
from torch import Tensor

from curricula.interfaces import (
    AttackLoss,
    Norm,
    Strength,
    Victim,
)
from curricula.losses import ATTACK_LOSSES, LossName
from curricula.perturbations.attacks.norm_ball import (
    BallAttack,
    a_budget,
    a_step,
    bounds,
    project,
    radii,
    random_start,
    sparse_step,
    steepest,
)
from curricula.perturbations.attacks.restarts import worst_of

L1_SHARE = 0.01  # of the pixels, for an l-1 step: what Tramer and Boneh 2019 take
ROUNDING = 1e-6  # a number of steps within this share above a whole one is that whole one


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
    """Projected gradient ascent; the last iterate, as Madry et al. 2018 and torchattacks have it.

    Args:
        x_NCHW: the centre of each ball.
        y_N: the labels.
        start_NCHW: where the ascent starts.
        eps_N111: the radius of each ball.
        victim: the model.
        loss: what is ascended; None for the victim's own.
        norm: of the ball and of the step.
        step_N111: length of a step, in the norm, in [0, 1] pixel units.
        steps: how many, or how many for each image (N,); an image that is done costs nothing more.
        l1_share: as for `sparse_step`.
        tau: where given, an image stops once it is misclassified and has taken so many steps as a
            misclassified one (Zhang et al. 2020, algorithm 1); it then costs nothing more.
    """
    order = going_N = torch.arange(len(x_NCHW), device=x_NCHW.device)
    if isinstance(steps, Tensor):
        # Those with most steps first: what is still moving is then the head of the batch. Reading
        # the counts is the only time that the host waits for the device.
        order = steps.argsort(descending=True, stable=True)
        steps_N = steps.cpu()
        moving = (steps_N[:, None] > torch.arange(int(steps_N.max()))).sum(0).tolist()
        x_NCHW, y_N, eps_N111 = x_NCHW[order], y_N[order], eps_N111[order]
        step_N111, adversarial = step_N111[order], start_NCHW[order]
    else:
        moving, adversarial = [len(x_NCHW)] * steps, start_NCHW.clone()
    if norm == "linf":
        lowest, highest = bounds(x_NCHW, eps_N111)
    patience_N = torch.full_like(y_N, tau or 0)
    for n in moving:
        at: slice | Tensor = slice(n)
        if tau is not None:  # the host waits for the device; images that are done are left out
            at = going_N = going_N[going_N < n]
        present = adversarial[at]
        if len(present) == 0:
            break
        some = victim.subset(order[at])
        gradient, _, logits = some.gradient(present, y_N[at], loss)
        if norm == "linf":
            following = torch.addcmul(present, step_N111[at], steepest(gradient, norm))
            following.clamp_(lowest[at], highest[at])
        elif norm == "l2":
            following = present + step_N111[at] * steepest(gradient, norm)
            following = project(following, x_NCHW[at], eps_N111[at], norm)
        else:
            following = present + sparse_step(gradient, present, step_N111[at], l1_share)
            following = project(following, x_NCHW[at], eps_N111[at], norm)
        if tau is not None:
            wrong = logits.argmax(1) != y_N[going_N]
            goes = ~wrong | (patience_N[going_N] > 0)
            patience_N[going_N] -= wrong.to(patience_N)
            at = going_N = going_N[goes]
            following = following[goes]
        adversarial[at] = following
    if not isinstance(steps, Tensor):
        return adversarial
    return torch.empty_like(adversarial).index_copy_(0, order, adversarial)


def _whole_or_auto(instance: "PGD", attribute: Any, value: int | str) -> None:
    if not isinstance(value, str):
        ge(0)(instance, attribute, value)
    elif value != "auto":
        raise ValueError(f"steps must be a whole number or auto, not {value!r}")


@attrs.frozen(kw_only=True)
class PGD(BallAttack):
    """`pgd`: projected gradient descent on the model's loss (Madry et al. 2018, section 2.1).

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more.
        norm: ``linf``, ``l2`` or ``l1`` (the sparse steps of SLIDE, Tramer and Boneh 2019, and the
            projection of Croce and Hein 2021).
        steps: gradient steps of each restart, 0 or more; or ``auto``: in proportion to the
            strength, rounded up, and at strength 1 enough to go 2.5 times the budget.
        step: length of a step at any strength, in [0, 1] pixel units; rather than ``rel_step``.
            With ``steps=auto`` a quarter of the budget by default, which makes 10 steps.
        rel_step: length of a step as a share of the present radius (budget x strength); by default
            2.5 / steps, as Madry et al. take it.
        random_start: start at a random image of the ball rather than at x.
        restarts: independent runs; per image the worst for the model is kept, misclassified
            before correct, then by cross-entropy.
        loss: ``ce``, ``kl``, ``dlr``, or ``default``: the objective's own in training, ``ce`` in a
            threat.
        l1_share: with ``norm=l1``, the share of all pixels (of each channel) that a step moves,
            above 0 to 1; by default 0.01.
        tau: 0 or more: stop so many steps after an image is misclassified ("friendly" adversarial
            training, Zhang et al. 2020). Gentler, and weaker as a threat. None: never.

    Raises:
        ValueError: an argument out of range; both ``step`` and ``rel_step``; ``rel_step`` with
            ``steps=auto``; several restarts from the same point, or that stop early; ``kl`` from
            the image itself, where its gradient is zero; ``l1_share`` in another norm.
    """

    budget: float = attrs.field(validator=a_budget)
    norm: Norm = "linf"
    steps: int | Literal["auto"] = attrs.field(default=10, validator=_whole_or_auto)
    step: float | None = attrs.field(validator=optional(a_step))
    rel_step: float | None = attrs.field(validator=optional(gt(0)))
    random_start: bool = True
    restarts: int = attrs.field(default=1, validator=ge(1))
    loss: LossName = "default"
    l1_share: float | None = attrs.field(validator=optional(and_(gt(0.0), le(1.0))))
    tau: int | None = attrs.field(default=None, validator=optional(ge(0)))

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
        if self.steps == "auto" and self.rel_step is not None:
            raise ValueError("steps=auto counts steps of one length; give step, not rel_step")
        if self.step is not None and self.rel_step is not None:
            raise ValueError("step and rel_step contradict each other; give one of them")
        still = self.steps == 0 or (self.steps == "auto" and self.budget == 0)
        if self.step is None and self.rel_step is None and not still:
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
    def full_steps(self) -> int:
        """Steps of a restart at strength 1."""
        if not isinstance(self.steps, str):
            return self.steps
        if self.step is None:
            return 0  # the budget is 0
        return math.ceil(2.5 * self.budget / self.step * (1 - ROUNDING))

    def steps_at(self, strength: Strength) -> int | Tensor:
        """Steps of a restart at a strength; one number for each image where strengths are so."""
        if not isinstance(self.steps, str):
            return self.steps
        if isinstance(strength, Tensor):
            return (strength * (self.full_steps * (1 - ROUNDING))).ceil().long()
        return math.ceil(self.full_steps * strength * (1 - ROUNDING))

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
                    loss=named(self.loss),
                    norm=self.norm,
                    step_N111=length[index],
                    steps=steps[index] if isinstance(steps, Tensor) else steps,
                    l1_share=self.l1_share or L1_SHARE,
                    tau=self.tau,
                )

            return worst_of(draw, run, self.restarts, y_N, victim)


def named(loss: LossName) -> AttackLoss | None:
    """The loss of a name; None, the victim's own, for ``default``."""
    return None if loss == "default" else ATTACK_LOSSES[loss]
