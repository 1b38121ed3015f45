"""Run an attack several times and keep the result that is worst for the model."""

from collections.abc import Callable

import torch
from torch import Tensor

from curricula.interfaces import Victim
from curricula.losses import adversarial_rank


def passes_of(passes: int, times: int) -> int:
    """Return the passes per image of ``times`` runs of ``passes`` each, including their ranking.

    Several runs are ranked by one forward pass each.

    >>> passes_of(10, times=1), passes_of(10, times=5)
    (10, 55)
    """
    return passes if times == 1 else times * (passes + 1)


def worst_of(
    draw: Callable[[], Tensor],
    run: Callable[[Tensor, Tensor], Tensor],
    times: int,
    y_N: Tensor,
    victim: Victim,
) -> Tensor:
    """Run an attack several times and return each image's worst result for the model, NCHW:
    misclassified before correct, then by highest cross-entropy.

    Args:
        draw: returns fresh starting points for all images, including those already fooled, so
            that every image's random numbers stay the same.
        run: returns an adversarial image for each image of a subset, given the images' indices and
            starting points.
        times: number of runs, 1 or more; inactive images are left out of the later ones.
        y_N: the labels.
        victim: the model; its `active` chooses the images to keep attacking.
    """
    active = torch.arange(len(y_N), device=y_N.device)
    best = run(active, draw())
    if times == 1:
        return best
    logits = victim.logits(best)
    rank_N = adversarial_rank(logits, y_N)
    for _ in range(times - 1):
        active = active[victim.active(logits, y_N[active])]
        if len(active) == 0:
            break
        candidate = run(active, draw()[active])
        logits = victim.subset(active).logits(candidate)
        candidate_rank = adversarial_rank(logits, y_N[active])
        better = candidate_rank > rank_N[active]
        candidate = torch.where(better[:, None, None, None], candidate, best[active])
        best = best.index_copy(0, active, candidate)
        rank_N[active] = torch.maximum(rank_N[active], candidate_rank)
    return best
