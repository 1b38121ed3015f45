"""Auto-PGD in the l-1 ball cut to [0, 1], which adapts the sparsity of its steps."""

import torch
from torch import Tensor

from curricula.interfaces import AttackLoss, Victim
from curricula.perturbations.attacks.norm_ball import per_image, project

# [0, 1] pixel units; smaller changes do not count. The values of a step move equally far, so that
# the projection often restores some of them, up to rounding.
ROUNDING = 1e-6


def ascend_sparsely(
    x_NCHW: Tensor,
    y_N: Tensor,
    start_NCHW: Tensor,
    eps_N111: Tensor,
    *,
    victim: Victim,
    loss: AttackLoss,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Run APGD in the l-1 ball (Croce and Hein 2021, algorithm 1), and return for each image the
    visited point to attack with and the one of highest loss, both NCHW.

    The first is the misclassified point of highest loss, or the point of highest loss if none is
    misclassified. A step moves the values with the largest gradients, all equally far. Every 4 % of
    the steps their number becomes two thirds of the number of values that the best point changes.
    If that point has become sparser, by 5 % or more, the step gets its full length eps again and
    the search returns to it; if not, the step is divided by 1.5, down to eps / 10.

    One difference: two thirds of two are one value here. The authors' code moves two, and then
    never finds that the best change of a linear model lies in a single value.

    Args:
        x_NCHW: the centre of each ball.
        y_N: the labels.
        start_NCHW: starting points, within the balls.
        eps_N111: the radius of each ball, in [0, 1] pixel units.
        victim: the model.
        loss: the loss to ascend.
        steps: number of steps, 1 or more.
    """
    current = start_NCHW
    gradient, loss_N, logits = victim.gradient(current, y_N, loss)
    top, top_gradient, top_loss_N = current, gradient, loss_N
    found, found_loss_N, found_wrong_N = current, loss_N, logits.argmax(1) != y_N
    step_N111 = eps_N111
    changed_N = _changed(current, x_NCHW)
    moved_N = _two_thirds(changed_N)
    interval = max(4 * steps // 100, 1)
    for k in range(1, steps + 1):
        step = step_N111 * _sparse_direction(gradient, moved_N)
        current = project(current + step, x_NCHW, eps_N111, "l1")
        gradient, loss_N, logits = victim.gradient(current, y_N, loss)

        higher = loss_N > top_loss_N
        top = per_image(higher, current, top)
        top_gradient = per_image(higher, gradient, top_gradient)
        top_loss_N = torch.where(higher, loss_N, top_loss_N)
        wrong = logits.argmax(1) != y_N
        worse = torch.where(wrong == found_wrong_N, loss_N > found_loss_N, wrong)
        found = per_image(worse, current, found)
        found_loss_N = torch.where(worse, loss_N, found_loss_N)
        found_wrong_N = found_wrong_N | wrong

        if k % interval == 0:
            before_N, changed_N = changed_N, _changed(top, x_NCHW)
            sparser = 20 * changed_N < 19 * before_N
            moved_N = _two_thirds(changed_N)
            shorter = torch.maximum(step_N111 / 1.5, eps_N111 / 10)
            step_N111 = per_image(sparser, eps_N111, shorter)
            current = per_image(sparser, top, current)
            gradient = per_image(sparser, top_gradient, gradient)
    return found, top


def _changed(adversarial_NCHW: Tensor, x_NCHW: Tensor) -> Tensor:
    """Return the number of values (pixels times channels) that differ from the image, (N,)."""
    return ((adversarial_NCHW - x_NCHW).abs() > ROUNDING).sum(dim=(1, 2, 3))


def _two_thirds(count_N: Tensor) -> Tensor:
    """Return two thirds of each count, rounded up, but less than the count and at least 1, (N,)."""
    return torch.minimum((2 * count_N + 2) // 3, count_N - 1).clamp_min(1)


def _sparse_direction(gradient_NCHW: Tensor, moved_N: Tensor) -> Tensor:
    """Return the signs of each image's ``moved_N`` largest gradients, and 0 for all other values,
    divided by their number, NCHW.

    Values that tie with the last of them move too; those without a gradient never do.
    """
    size = gradient_NCHW.abs()
    least_N1 = size.flatten(1).sort(dim=1, descending=True).values.gather(1, moved_N[:, None] - 1)
    signs = gradient_NCHW.sign() * (size >= least_N1[:, :, None, None])
    return signs / signs.abs().sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
