"""Auto-PGD, which adapts its step length: the perturbation `apgd`."""

import math
from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from attrs.validators import ge, optional
from torch import Tensor

from curricula.interfaces import AttackLoss, Norm, Victim
from curricula.losses import ATTACK_LOSSES, towards
from curricula.perturbations.attacks.apgd_l1 import ascend_sparsely
from curricula.perturbations.attacks.norm_ball import (
    BallAttack,
    per_image,
    project,
    random_start,
    steepest,
)
from curricula.perturbations.attacks.restarts import passes_of, worst_of
from curricula.perturbations.attacks.wide_start import (
    ascend_through_balls,
    gaussian_start,
    stages,
)
from curricula.perturbations.validators import above_zero, valid_budget, valid_eot

ALPHA = 0.75  # weight of the new direction in a step; the previous one has the rest
RHO = 0.75  # share of the steps since the last review that must raise the loss


def checkpoints(steps: int) -> list[int]:
    """Return the numbers of the steps after which APGD may halve its step length (Croce and Hein
    2020, section 3.2).

    The first comes after 22 % of all steps; the intervals then shrink by 3 % of all, down to 6 %.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    percent, interval, found = 0, 22, []
    while percent + interval < 100:
        percent += interval
        found.append(-(-percent * steps // 100))
        interval = max(interval - 3, 6)
    return sorted(set(found))


def ascend_adaptively(
    x_NCHW: Tensor,
    y_N: Tensor,
    start_NCHW: Tensor,
    eps_N111: Tensor,
    *,
    victim: Victim,
    loss: AttackLoss,
    norm: Literal["linf", "l2"],
    steps: int,
    rho: float,
) -> tuple[Tensor, Tensor]:
    """Run APGD (Croce and Hein 2020, algorithm 1), and return for each image the visited point to
    attack with and the one of highest loss, both NCHW.

    The first is the misclassified point of highest loss, or the point of highest loss if none is
    misclassified. The published form returns the second.

    Args:
        x_NCHW: the centre of each ball.
        y_N: the labels.
        start_NCHW: starting points, within the balls.
        eps_N111: the radius of each ball, in [0, 1] pixel units.
        victim: the model.
        loss: the loss to ascend.
        norm: ``linf`` or ``l2``.
        steps: number of steps, 1 or more.
        rho: an image's step is halved if less than this share of the steps since the last review
            raised its loss (condition 1), or if it was not halved then and the highest loss has
            not changed since (condition 2).
    """
    current, previous = start_NCHW, start_NCHW
    gradient, loss_N, logits = victim.gradient(current, y_N, loss)
    # The search returns to the point of highest loss; the result may be a different one: see above.
    top, top_gradient, top_loss_N = current, gradient, loss_N
    found, found_loss_N, found_wrong_N = current, loss_N, logits.argmax(1) != y_N
    step_N111 = 2 * eps_N111
    raised_N = torch.zeros_like(loss_N)
    reviewed_loss_N, halved_N = top_loss_N, torch.zeros_like(found_wrong_N)
    reviews, last_review = set(checkpoints(steps)), 0
    for k in range(1, steps + 1):
        plain = project(current + step_N111 * steepest(gradient, norm), x_NCHW, eps_N111, norm)
        if k == 1:
            following = plain
        else:
            mixed = current + ALPHA * (plain - current) + (1 - ALPHA) * (current - previous)
            following = project(mixed, x_NCHW, eps_N111, norm)
        previous, current, before_N = current, following, loss_N
        gradient, loss_N, logits = victim.gradient(current, y_N, loss)
        raised_N = raised_N + (loss_N > before_N)

        higher = loss_N > top_loss_N
        top, top_gradient = (
            per_image(higher, current, top),
            per_image(higher, gradient, top_gradient),
        )
        top_loss_N = torch.where(higher, loss_N, top_loss_N)
        wrong = logits.argmax(1) != y_N
        worse = torch.where(wrong == found_wrong_N, loss_N > found_loss_N, wrong)
        found = per_image(worse, current, found)
        found_loss_N = torch.where(worse, loss_N, found_loss_N)
        found_wrong_N = found_wrong_N | wrong

        if k in reviews:
            rarely = raised_N < rho * (k - last_review)
            stuck = ~halved_N & (top_loss_N == reviewed_loss_N)
            halved_N = rarely | stuck
            step_N111 = per_image(halved_N, step_N111 / 2, step_N111)
            current, gradient = (
                per_image(halved_N, top, current),
                per_image(halved_N, top_gradient, gradient),
            )
            loss_N = torch.where(halved_N, top_loss_N, loss_N)
            reviewed_loss_N, last_review = top_loss_N, k
            raised_N = torch.zeros_like(raised_N)
    return found, top


@attrs.frozen(kw_only=True)
class APGD(BallAttack):
    """Ascend the loss by PGD with momentum; if progress stops, halve the step and return to the
    best point (Auto-PGD, Croce and Hein 2020, section 3).

    In l-1 it takes sparse steps without momentum, whose sparsity follows that of the best point
    (Croce and Hein 2021, "Mind the box!", section 3).

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more; in linf at most 1.
        norm: ``linf``, ``l2`` or ``l1``.
        steps: gradient steps of each run, 1 or more.
        loss: ``ce`` or ``dlr`` (three classes or more), under any objective.
        restarts: number of independent runs, 1 or more; each image keeps the result that is worst
            for the model: misclassified before correct, then by cross-entropy.
        targets: number of further runs, 0 or more, each towards one of the other classes on the
            targeted DLR loss (with two or three classes, the difference of logits): first towards
            the class of highest logit at the image, then the next, as far as there are classes.
        wide_start: spend 30 % of the steps in the ball of three times the radius, 30 % in that of
            twice the radius, and only the rest in the ball itself; by default in l1, as published.
            In l2 it finds what PGD misses on networks trained in linf.
        rho: in linf and l2, the share of steps that must raise the loss, or the step is halved;
            above 0 to 1; by default 0.75.
        eot: as for `pgd`.

    Raises:
        ValueError: a value out of range; ``rho`` in l1.

    Example:
        On a linear model the best change has the whole length of the budget.

        >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 2])
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
        >>> attack = APGD(budget=0.2, norm="l2", steps=10)
        >>> adversarial = attack(x, y, strength=1.0, victim=victim, generator=torch.Generator())
        >>> (adversarial - x).flatten(1).norm(dim=1)
        tensor([0.2000, 0.2000, 0.2000])
    """

    budget: float = attrs.field(validator=valid_budget)
    norm: Norm = "linf"
    steps: int = attrs.field(default=100, validator=ge(1))
    loss: Literal["ce", "dlr"] = "ce"
    restarts: int = attrs.field(default=1, validator=ge(1))
    targets: int = attrs.field(default=0, validator=ge(0))
    wide_start: bool = attrs.field()
    rho: float | None = attrs.field(validator=optional(above_zero(1.0)))
    eot: int | None = attrs.field(default=None, validator=valid_eot)

    @wide_start.default
    def _wide_start_default(self) -> bool:
        return self.norm == "l1"

    @rho.default
    def _rho_default(self) -> float | None:
        return None if self.norm == "l1" else RHO

    def __attrs_post_init__(self) -> None:
        if self.rho is not None and self.norm == "l1":
            raise ValueError("rho is for norm=linf and norm=l2, not l1; leave it out")

    @property
    def balls(self) -> list[tuple[int, int]]:
        """Multiples of the radius, and the number of steps of each run in that ball."""
        return stages(self.steps) if self.wide_start else [(1, self.steps)]

    @property
    def passes_of_draw(self) -> int:
        runs = passes_of(self.steps + len(self.balls), self.restarts + self.targets)
        return runs + (1 if self.targets else 0)

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        targets: Sequence[Tensor] = ()
        if self.targets:
            targets = other_classes(victim.logits(x_NCHW), y_N)[:, : self.targets].unbind(1)
        runs = iter([None] * self.restarts + list(targets))

        first_N111 = self.balls[0][0] * eps_N111

        def draw() -> Tensor:
            if self.norm == "l1":
                return gaussian_start(x_NCHW, first_N111, self.norm, generator)
            return random_start(x_NCHW, first_N111, self.norm, generator)

        def run(index: Tensor, start: Tensor) -> Tensor:
            x, y, some, target = x_NCHW[index], y_N[index], victim.subset(index), next(runs)
            loss = ATTACK_LOSSES[self.loss] if target is None else towards(target[index])

            def ascend(start: Tensor, radius: Tensor, steps: int) -> tuple[Tensor, Tensor]:
                if self.norm == "l1":
                    return ascend_sparsely(x, y, start, radius, victim=some, loss=loss, steps=steps)
                return ascend_adaptively(
                    x,
                    y,
                    start,
                    radius,
                    victim=some,
                    loss=loss,
                    norm=self.norm,
                    steps=steps,
                    rho=self.rho or RHO,
                )

            return ascend_through_balls(
                x, start, eps_N111[index], norm=self.norm, balls=self.balls, ascend=ascend
            )

        return worst_of(draw, run, self.restarts + len(targets), y_N, victim)


def other_classes(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """Return the classes without the label, from the highest logit to the lowest, (N, K - 1).

    >>> other_classes(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), torch.tensor([1]))
    tensor([[3, 2, 0]])
    """
    others = logits_NK.scatter(1, y_N[:, None], -math.inf)
    return others.argsort(dim=1, descending=True)[:, :-1]
