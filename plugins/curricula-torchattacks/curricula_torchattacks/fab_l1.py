"""The targeted FAB attack in l-1, for AutoAttack: torchattacks' own fails in this norm."""

from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
from attrs.validators import ge
from torch import Tensor

from curricula.interfaces import AttackLoss, Victim
from curricula.perturbations.attacks.apgd import other_classes
from curricula.perturbations.attacks.norm_ball import BallAttack, per_image
from curricula.perturbations.validators import valid_budget

ALPHA_MAX, ETA, BETA = 0.1, 1.05, 0.9  # pull to the image, overshoot, and share kept on success


@attrs.frozen(kw_only=True)
class FABL1(BallAttack):
    """Look for the smallest l-1 change over the boundary to each of the other classes, by steps to
    the linearised boundary (Croce and Hein 2020, "Minimally distorted adversarial examples",
    algorithm 1).

    An image without such a change within the budget is returned as it is. Nothing is random.

    Args:
        budget: radius of the l-1 ball, in [0, 1] pixel units, 0 or more.
        max_steps: steps towards each class, 1 or more.
        targets: number of other classes, 1 or more: those of highest logits at the image.
    """

    norm: ClassVar = "l1"

    budget: float = attrs.field(validator=valid_budget)
    max_steps: int = attrs.field(default=100, validator=ge(1))
    targets: int = attrs.field(default=9, validator=ge(1))

    @property
    def passes(self) -> int:
        return self.targets * self.max_steps

    def attack(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        eps_N111: Tensor,
        *,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        result = x_NCHW.clone()
        logits = victim.logits(x_NCHW)
        index = (logits.argmax(1) == y_N).nonzero().squeeze(1)
        for target_N in other_classes(logits, y_N)[:, : self.targets].unbind(1):
            if len(index) == 0:
                break
            x, y = x_NCHW[index], y_N[index]
            found, length_N = smallest_change(
                x, y, target_N[index], victim=victim.subset(index), steps=self.max_steps
            )
            fools = length_N <= eps_N111.flatten()[index]
            result[index[fools]] = found[fools]
            index = index[~fools]
        return result


def smallest_change(
    x_NCHW: Tensor, y_N: Tensor, target_N: Tensor, *, victim: Victim, steps: int
) -> tuple[Tensor, Tensor]:
    """Return each image's misclassified point of smallest l-1 change that a search towards a class
    found, NCHW, and the length of that change, (N,); it is infinite if none was found."""
    loss = _lead_of(target_N)
    point = best = x_NCHW
    best_length_N = torch.full_like(y_N, torch.inf, dtype=x_NCHW.dtype)
    for _ in range(steps):
        gradient, lead_N, _ = victim.gradient(point, y_N, loss)
        missing_N = (gradient * (x_NCHW - point)).sum(dim=(1, 2, 3)) + lead_N
        near = nearest_on_boundary(point, gradient, lead_N)
        far = nearest_on_boundary(x_NCHW, gradient, missing_N)
        near_length, far_length = (
            each.abs().sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-8) for each in (near, far)
        )
        alpha = (near_length / (near_length + far_length)).clamp_max(ALPHA_MAX)
        point = (point + ETA * near) * (1 - alpha) + (x_NCHW + ETA * far) * alpha
        point = point.clamp(0, 1)
        fools = victim.logits(point).argmax(1) != y_N
        length_N = (point - x_NCHW).abs().sum(dim=(1, 2, 3))
        smaller = fools & (length_N < best_length_N)
        best = per_image(smaller, point, best)
        best_length_N = torch.where(smaller, length_N, best_length_N)
        point = per_image(fools, x_NCHW + BETA * (point - x_NCHW), point)
    return best, best_length_N


def nearest_on_boundary(point_NCHW: Tensor, gradient_NCHW: Tensor, lead_N: Tensor) -> Tensor:
    """Return the smallest l-1 change within [0, 1] that brings a linear lead to 0, NCHW.

    It moves the values with the largest gradients to their bounds, and the last of them only as far
    as needed. If all values together do not reach 0, all of them move to their bounds.

    Args:
        point_NCHW: where the change starts, in [0, 1].
        gradient_NCHW: the gradient of the lead.
        lead_N: the lead at the point.
    """
    slope = gradient_NCHW * -lead_N.sign()[:, None, None, None]  # up to 0 from below, or down
    room = torch.where(slope > 0, 1 - point_NCHW, point_NCHW)
    size, order = slope.abs().flatten(1).sort(dim=1, descending=True, stable=True)
    gain = size * room.flatten(1).gather(1, order)
    before = gain.cumsum(dim=1) - gain
    spent = torch.minimum(gain, (lead_N.abs()[:, None] - before).clamp_min(0))
    step = torch.where(size > 1e-8, spent / size.clamp_min(1e-8), 0)
    return torch.zeros_like(step).scatter(1, order, step).reshape_as(slope) * slope.sign()


def _lead_of(target_N: Tensor) -> AttackLoss:
    """Return the loss that is the logit of each image's target less that of its label."""

    def lead(logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]) -> Tensor:
        target, label = (logits_NK.gather(1, at[:, None]).squeeze(1) for at in (target_N, y_N))
        return target - label

    return lead
