"""Several runs of an attack, and the worst of them for the model."""

from collections.abc import Callable

import torch
from torch import Tensor

from curricula.interfaces import Victim
from curricula.losses import badness


def worst_of(run: Callable[[], Tensor], times: int, y_N: Tensor, victim: Victim) -> Tensor:
    """Per image the worst of so many runs: misclassified before correct, then by cross-entropy.

    Args:
        run: makes one candidate an image; it draws anew each time.
        times: how often, 1 or more.
        y_N: the labels.
        victim: the model.
    """
    best = run()
    if times == 1:
        return best
    badness_N = badness(victim.logits(best), y_N)
    for _ in range(times - 1):
        other = run()
        other_badness_N = badness(victim.logits(other), y_N)
        better = other_badness_N > badness_N
        best = torch.where(better[:, None, None, None], other, best)
        badness_N = torch.maximum(badness_N, other_badness_N)
    return best
