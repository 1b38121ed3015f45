"""Auto-PGD, which finds its own step: the perturbation `apgd`."""

from typing import Literal

import attrs
import torch
from attrs.validators import and_, ge, gt, le
from torch import Tensor

from curricula.interfaces import AttackLoss, Victim
from curricula.losses import ATTACK_LOSSES
from curricula.perturbations.attacks.norm_ball import (
    BallAttack,
    a_budget,
    project,
    random_start,
    steepest,
)
from curricula.perturbations.attacks.restarts import worst_of

ALPHA = 0.75  # of the new direction in a step; the rest is the previous one's


def checkpoints(steps: int) -> list[int]:
    """The steps after which step lengths are reviewed (Croce and Hein 2020, section 3.2): first
    after 22 % of all, then at intervals that shrink by 3 % of all, down to 6 %."""
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
) -> Tensor:
    """APGD (Croce and Hein 2020, algorithm 1), and of the points that it visits the one of highest
    loss; the published form would return that even where it passed a misclassified point of lower
    loss, while here such a point comes before every correct one.

    Args:
        x_NCHW: the centre of each ball.
        y_N: the labels.
        start_NCHW: where the ascent starts.
        eps_N111: the radius of each ball.
        victim: the model.
        loss: what is ascended.
        norm: ``linf`` or ``l2``.
        steps: how many, 1 or more.
        rho: an image's step is halved if fewer than this share of the steps since the last review
            raised its loss (condition 1), or if it was not halved then and the highest loss is the
            same since (condition 2).
    """
    present, previous = start_NCHW, start_NCHW
    gradient, loss_N, logits = victim.gradient(present, y_N, loss)
    # Where the search goes back to, and what is returned, are two things: see above.
    top, top_gradient, top_loss_N = present, gradient, loss_N
    found, found_loss_N, found_wrong_N = present, loss_N, logits.argmax(1) != y_N
    step_N111 = 2 * eps_N111
    raised_N = torch.zeros_like(loss_N)
    reviewed_loss_N, halved_N = top_loss_N, torch.zeros_like(found_wrong_N)
    reviews, last_review = set(checkpoints(steps)), 0
    for k in range(1, steps + 1):
        plain = project(present + step_N111 * steepest(gradient, norm), x_NCHW, eps_N111, norm)
        if k == 1:
            following = plain
        else:
            mixed = present + ALPHA * (plain - present) + (1 - ALPHA) * (present - previous)
            following = project(mixed, x_NCHW, eps_N111, norm)
        previous, present, before_N = present, following, loss_N
        gradient, loss_N, logits = victim.gradient(present, y_N, loss)
        raised_N = raised_N + (loss_N > before_N)

        higher = loss_N > top_loss_N
        top, top_gradient = _where(higher, present, top), _where(higher, gradient, top_gradient)
        top_loss_N = torch.where(higher, loss_N, top_loss_N)
        wrong = logits.argmax(1) != y_N
        worse = torch.where(wrong == found_wrong_N, loss_N > found_loss_N, wrong)
        found = _where(worse, present, found)
        found_loss_N = torch.where(worse, loss_N, found_loss_N)
        found_wrong_N = found_wrong_N | wrong

        if k in reviews:
            rarely = raised_N < rho * (k - last_review)
            stuck = ~halved_N & (top_loss_N == reviewed_loss_N)
            halved_N = rarely | stuck
            step_N111 = _where(halved_N, step_N111 / 2, step_N111)
            present, gradient = (
                _where(halved_N, top, present),
                _where(halved_N, top_gradient, gradient),
            )
            loss_N = torch.where(halved_N, top_loss_N, loss_N)
            reviewed_loss_N, last_review = top_loss_N, k
            raised_N = torch.zeros_like(raised_N)
    return found


def _where(which_N: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(which_N[:, None, None, None], a, b)


@attrs.frozen(kw_only=True)
class APGD(BallAttack):
    """`apgd`: Auto-PGD (Croce and Hein 2020, section 3): PGD with momentum that halves its step
    where it stops gaining, and goes back to the best point then.

    Args:
        budget: radius of the ball, in [0, 1] pixel units, 0 or more.
        norm: ``linf`` or ``l2``.
        steps: of each restart, 1 or more.
        loss: ``ce`` or ``dlr`` (three classes or more), under any objective.
        restarts: independent runs; per image the worst for the model is kept, misclassified
            before correct, then by cross-entropy.
        rho: the share of steps that must raise the loss, above 0 to 1.
    """

    budget: float = attrs.field(validator=a_budget)
    norm: Literal["linf", "l2"] = "linf"
    steps: int = attrs.field(default=100, validator=ge(1))
    loss: Literal["ce", "dlr"] = "ce"
    restarts: int = attrs.field(default=1, validator=ge(1))
    rho: float = attrs.field(default=0.75, validator=and_(gt(0.0), le(1.0)))

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

        def draw() -> Tensor:
            return random_start(x_NCHW, eps_N111, self.norm, generator)

        def run(index: Tensor, start: Tensor) -> Tensor:
            return ascend_adaptively(
                x_NCHW[index],
                y_N[index],
                start,
                eps_N111[index],
                victim=victim.subset(index),
                loss=ATTACK_LOSSES[self.loss],
                norm=self.norm,
                steps=self.steps,
                rho=self.rho,
            )

        return worst_of(draw, run, self.restarts, y_N, victim)
