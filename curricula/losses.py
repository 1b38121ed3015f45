"""Per-example losses that attacks maximise, by name.

Each takes (logits_NK, y_N, reference), where reference() returns the reference logits_NK, and
returns loss_N. Shape suffixes: N images, K classes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.errors import UserError
from curricula.interfaces import AttackLoss

LossName = Literal["default", "ce", "kl", "dlr"]


def cross_entropy(logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]) -> Tensor:
    """Return the cross-entropy of each image's logits with its label, (N,)."""
    return F.cross_entropy(logits_NK, y_N, reduction="none")


def kl_divergence(logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]) -> Tensor:
    """Return KL(reference || prediction) of each image, (N,): the inner loss of TRADES (Zhang et
    al. 2019, eq. 5).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> kl_divergence(logits, torch.tensor([0]), lambda: logits)
        tensor([0.])
    """
    # From log-probabilities: otherwise its gradient is NaN where a probability is 0.
    return F.kl_div(
        F.log_softmax(logits_NK, dim=1),
        F.log_softmax(reference(), dim=1),
        reduction="none",
        log_target=True,
    ).sum(1)


def difference_of_logits_ratio(
    logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]
) -> Tensor:
    """Return the difference-of-logits-ratio (DLR) loss of each image, (N,), which is invariant to
    shifts and rescalings of the logits (Croce and Hein 2020, eq. 6).

    Raises:
        UserError: fewer than three classes.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 3.0, 2.0]])
        >>> difference_of_logits_ratio(logits, torch.tensor([0]), lambda: logits)
        tensor([-0.5000])
    """
    if logits_NK.shape[1] < 3:
        raise UserError(
            f"the DLR loss needs three classes or more, not {logits_NK.shape[1]}; use ce"
        )
    ordered = logits_NK.sort(dim=1, descending=True).values
    label = logits_NK.gather(1, y_N[:, None]).squeeze(1)
    other = logits_NK.scatter(1, y_N[:, None], -math.inf).max(1).values
    return (other - label) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def nuclear_norm_parts(difference_NK: Tensor) -> Tensor:
    """Return one number for each row of a matrix (N,), which add up to its nuclear norm, the sum of
    its singular values; the gradient of their sum is that of the norm.

    With the singular value decomposition U S V', the norm's gradient is U V', and the norm is the
    sum of its products with the entries of the matrix. Singular values of 0 are left out of it.

    Example:
        >>> import torch
        >>> nuclear_norm_parts(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
        tensor([3., 4.])
    """
    with torch.no_grad():  # NaN stays in the product below
        u, s, v = torch.linalg.svd(difference_NK.nan_to_num(), full_matrices=False)
        positive = s > s[:1] * max(difference_NK.shape) * torch.finfo(s.dtype).eps
        gradient_NK = (u * positive) @ v
    parts_N: Tensor = (difference_NK * gradient_NK).sum(1)
    return parts_N


def towards(target_N: Tensor) -> AttackLoss:
    """Return the loss that rises as an image nears its target class: the targeted DLR loss (Croce
    and Hein 2020, eq. 7), which is invariant to shifts and rescalings of the logits.

    The ratio compares four logits. With two or three classes the loss is its numerator, the logit
    of the target less that of the label, which vanishes nowhere either.

    Example:
        >>> import torch
        >>> logits, label = torch.tensor([[4.0, 3.0, 2.0, 0.0]]), torch.tensor([0])
        >>> towards(torch.tensor([1]))(logits, label, lambda: logits)
        tensor([-0.3333])
    """

    def loss(logits_NK: Tensor, y_N: Tensor, reference: Callable[[], Tensor]) -> Tensor:
        target, label = (logits_NK.gather(1, at[:, None]).squeeze(1) for at in (target_N, y_N))
        if logits_NK.shape[1] < 4:
            return target - label
        first, _, third, fourth = logits_NK.topk(4).values.unbind(1)
        return (target - label) / (first - (third + fourth) / 2 + 1e-12)

    return loss


ATTACK_LOSSES: Mapping[str, AttackLoss] = {
    "ce": cross_entropy,
    "kl": kl_divergence,
    "dlr": difference_of_logits_ratio,
}
assert set(get_args(LossName)) == {"default", *ATTACK_LOSSES}


def adversarial_rank(logits_NK: Tensor, y_N: Tensor) -> Tensor:
    """Return a score (N,) by which to choose among adversarial images: above 1 for misclassified
    ones, and higher for a larger cross-entropy.

    Misclassified images rank above correct ones; among each, a larger cross-entropy ranks higher.
    So a candidate that fools the model is never replaced by one that does not.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.4, 0.5, 0.4], [9.0, 0.0, 0.0]])
        >>> rank = adversarial_rank(logits, torch.tensor([0, 0]))
        >>> bool(rank[0] > 1 > rank[1])
        True
    """
    loss_N = F.cross_entropy(logits_NK, y_N, reduction="none")
    wrong = (logits_NK.argmax(1) != y_N) | loss_N.isnan()
    # Each part grows with the loss; misclassified images stay above 1, correct ones below. A loss
    # that is infinite or NaN ranks highest, so that it is never overlooked.
    bounded = (loss_N / (1 + loss_N)).nan_to_num(nan=1.0)
    return bounded + wrong.to(bounded.dtype)


def uneven_sum(logits_NK: Tensor, y_N: Tensor, reference: object) -> Tensor:
    """Return a weighted sum of each image's logits (N,), a loss that never saturates and that a
    softmax or shift does not make constant."""
    weights_K = torch.linspace(-1, 1, logits_NK.shape[1], device=logits_NK.device)
    return (logits_NK * weights_K).sum(1)
