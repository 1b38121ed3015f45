"""Ascents that begin in larger balls, for attacks that adapt their step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from curricula.interfaces import Norm
from curricula.perturbations.attacks.norm_ball import project

Ascent = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(start_NCHW, radius_N111, steps) -> the points to attack with, and those of highest loss."""


def stages(steps: int) -> list[tuple[int, int]]:
    """Return pairs (multiple of the radius, number of steps), of the balls that a search passes
    through (Croce and Hein 2021, section 3): 30 % of the steps in the ball of 3 eps, 30 % in that
    of 2 eps, the rest in that of eps. A ball without a step is left out.

    >>> stages(100), stages(2)
    ([(3, 30), (2, 30), (1, 40)], [(1, 2)])
    """
    wide = 3 * steps // 10
    return [
        (times, taken) for times, taken in ((3, wide), (2, wide), (1, steps - 2 * wide)) if taken
    ]


def gaussian_start(
    x_NCHW: Tensor, radius_N111: Tensor, norm: Norm, generator: torch.Generator
) -> Tensor:
    """Return Gaussian noise about each image, projected into its ball and into [0, 1], NCHW."""
    noise = torch.randn(x_NCHW.shape, generator=generator, device=x_NCHW.device)
    return project(x_NCHW + noise, x_NCHW, radius_N111, norm)


def ascend_through_balls(
    x_NCHW: Tensor,
    start_NCHW: Tensor,
    eps_N111: Tensor,
    *,
    norm: Norm,
    balls: Sequence[tuple[int, int]],
    ascend: Ascent,
) -> Tensor:
    """Run an ascent in shrinking balls, each from the projection of the point of highest loss in
    the one before, and return its result in the last ball, NCHW.

    A few pixels that change a lot, or a region behind a plateau, are hard to find from within the
    small ball.

    Args:
        x_NCHW: the centre of each ball.
        start_NCHW: starting points, within the first ball.
        eps_N111: the radius of the last ball of each image, in [0, 1] pixel units.
        norm: norm of the balls.
        balls: multiples of the radius with their numbers of steps, such as `stages`.
        ascend: runs the ascent in one ball.
    """
    (times, taken), *others = balls
    found, top = ascend(start_NCHW, times * eps_N111, taken)
    for times, taken in others:
        start = project(top, x_NCHW, times * eps_N111, norm)
        found, top = ascend(start, times * eps_N111, taken)
    return found
