"""Per-example losses that an attack ascends, by name.

Each takes (logits_NK, y_N, reference), where reference() gives the logits_NK at the anchor, and
returns loss_N.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from curricula.errors import UserError
from curricula.interfaces import AttackLoss

LossName = Literal["default", "ce", "kl", "dlr"]


def cross_entropy(logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]) -> Tensor:
    """Cross-entropy with the label."""
    return F.cross_entropy(logits_NK, y_N, reduction="none")


def kl_divergence(logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]) -> Tensor:
    """KL(p at the anchor || p), the inner loss of TRADES (Zhang et al. 2019, eq. 5)."""
    # Of the logarithms: where a probability is 0, only so its gradient is a number.
    return F.kl_div(
        F.log_softmax(logits_NK, dim=1),
        F.log_softmax(reference(), dim=1),
        reduction="none",
        log_target=True,
    ).sum(1)


def difference_of_logits_ratio(
    logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]
) -> Tensor:
    """DLR (Croce and Hein 2020, eq. 6): invariant to shifts and rescalings of the logits.

    Raises:
        UserError: for fewer than three classes.
    """
    if logits_NK.shape[1] < 3:
        raise UserError(f"the DLR loss needs three classes or more, not {logits_NK.shape[1]}")
    ordered = logits_NK.sort(dim=1, descending=True).values
    label = logits_NK.gather(1, y_N[:, None]).squeeze(1)
    other = logits_NK.scatter(1, y_N[:, None], -math.inf).max(1).values
    return (other - label) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


ATTACK_LOSSES: Mapping[str, AttackLoss] = {
    "ce": cross_entropy,
    "kl": kl_divergence,
    "dlr": difference_of_logits_ratio,
}
assert set(get_args(LossName)) == {"default", *ATTACK_LOSSES}


def adversarial_rank(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """How bad an adversary's outcome is for the model, (N,): misclassified before correct, then by
    cross-entropy. Choosing the largest never trades a fooled candidate for an unfooled one."""
    loss_N = F.cross_entropy(logits_NK, y_N, reduction="none")
    wrong = (logits_NK.argmax(1) != y_N) | loss_N.isnan()
    # Both parts grow with the loss; a wrong candidate stays above 1, a correct one below. A loss
    # that is infinite or no number is as bad as can be: none is passed over unseen.
    bounded = (loss_N / (1 + loss_N)).nan_to_num(nan=1.0)
    return bounded + wrong.to(bounded.dtype)
