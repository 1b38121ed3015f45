"""Several runs of an attack, and the worst of them for the model."""

from collections.abc import Callable

import torch
from torch import Tensor

from curricula.interfaces import Victim
from curricula.losses import adversarial_rank


def worst_of(
    draw: Callable[[], Tensor],
    run: Callable[[Tensor, Tensor], Tensor],
    times: int,
    y_N: Tensor,
    victim: Victim,
) -> Tensor:
    """Per image the worst of so many runs: misclassified before correct, then by cross-entropy.

    Args:
        draw: where a run starts, for every image, so that an image's draws do not depend on which
            others still stand; anew each time.
        run: makes a candidate of each of some images, given their indices and their starts.
        times: how often, 1 or more; an image that does not stand is left out of the later ones.
        y_N: the labels.
        victim: the model.
    """
    active = torch.arange(len(y_N), device=y_N.device)
    best = run(active, draw())
    if times == 1:
        return best
    logits = victim.logits(best)
    badness_N = adversarial_rank(logits, y_N)
    for _ in range(times - 1):
        active = active[victim.active(logits, y_N[active])]
        if len(active) == 0:
            break
        other = run(active, draw()[active])
        logits = victim.subset(active).logits(other)
        other_badness = adversarial_rank(logits, y_N[active])
        better = other_badness > badness_N[active]
        other = torch.where(better[:, None, None, None], other, best[active])
        best = best.index_copy(0, active, other)
        badness_N[active] = torch.maximum(badness_N[active], other_badness)
    return best
