"""The checks of an audit: each applies one rule to a model's logits and gradients, or to the images
that attacks fool.

Two attacks are compared image by image. The stronger one has more steps, more restarts, a larger
ball or a gradient. Perfect attacks would be in that order on every image. Real ones miss a few, so
up to ``ALLOWED`` of all images may break the order. A check fails if the images measured show that
more of them do, by an exact binomial test: 2 or more of 6 images, 10 of 200, 32 of 1,000. If
exactly the allowed share of all images breaks the order, a check fails in at most one audit of a
hundred, whatever the number of images. Models with masked gradients break it on tens of percent.

A random model is measured by several draws, so each mask is a share of draws in [0, 1], which is 0
or 1 for other models. An image breaks the order only if a quarter of its draws or fewer are correct
under one attack, and three quarters or more under the other.
"""

from collections.abc import Mapping
from itertools import pairwise

import attrs
import torch
from torch import Tensor

from curricula.evaluation.intervals import exceeds
from curricula.victim.equivalence import TOLERANCE

ALLOWED = 0.02  # share of the images that may break the order of two attacks
FALSE_ALARMS = 0.01  # largest probability that a check fails where that share breaks the order
CLEAR = 0.25  # largest share of correct draws of an image that an attack clearly fools
# Size of a gradient's largest entry. Entries smaller by float32's precision must still be normal
# numbers; below this size, some are lost.
MIN_GRADIENT = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps


@attrs.frozen(kw_only=True)
class Check:
    """One check of an audit: the property that should hold, whether it holds, and the measured
    values.

    Attributes:
        name: the property that should hold.
        passed: whether it holds.
        finding: one sentence with the measured values and, if the check failed, their meaning.
    """

    name: str
    passed: bool
    finding: str


# Checks of the model.


def deterministic_forward(logits_NK: Tensor, again_NK: Tensor, alone_FK: Tensor) -> Check:
    """Check that an image's logits are the same in a second pass, and in a pass of that image
    alone.

    They may differ by rounding: a thousandth of the largest logit, as in
    curricula.victim.equivalence. A random model hides its gradient in noise (AutoAttack's flag for
    randomised defences). A model that depends on the batch gives an attack a different function
    from the measured one.

    Args:
        logits_NK: logits of some images.
        again_NK: logits of the same images in a second pass.
        alone_FK: logits of the first few images, each passed by itself.
    """
    twice = float((logits_NK - again_NK).abs().max())
    by_itself = float((logits_NK[: len(alone_FK)] - alone_FK).abs().max())
    largest = float(logits_NK.abs().max())
    return _check(
        "deterministic forward",
        twice <= TOLERANCE * largest and by_itself <= TOLERANCE * largest,  # NaN is neither
        f"logits of up to {largest:.3g} differ by {twice:.2g} in a second pass of "
        f"{len(logits_NK):,} images, and by {by_itself:.2g} for {len(alone_FK)} images alone",
        "the model draws random numbers or depends on the batch in eval mode: remove that, or "
        "attack the mean over many draws",
    )


def logits_not_probabilities(logits_NK: Tensor) -> Check:
    """Check that a model's outputs are finite and not all in [0, 1], as they would be after a
    softmax.

    Cross-entropy of probabilities saturates where it should grow, and its gradient vanishes (Croce
    and Hein 2020: softmax output). Log-probabilities are valid logits: a softmax inverts them.

    Args:
        logits_NK: logits of some images.
    """
    low, high = float(logits_NK.min()), float(logits_NK.max())
    sums = logits_NK.sum(1)
    return _check(
        "logits, not probabilities",
        bool(logits_NK.isfinite().all()) and not (low >= 0 and high <= 1),
        f"outputs lie from {low:.3g} to {high:.3g}, and their sum for an image from "
        f"{float(sums.min()):.3g} to {float(sums.max()):.3g}",
        "these are probabilities or not finite: remove the last softmax or sigmoid",
    )


def nonzero_gradients(largest_N: Mapping[str, Tensor]) -> Check:
    """Check that the gradient of each attack loss with respect to the images is finite and not zero
    (AutoAttack flags zero gradients of DLR).

    A gradient has vanished if it is not finite, or if its largest entry is so small that float32
    loses others (``MIN_GRADIENT``; mostly it is zero then). The check fails if the gradient of a
    loss has vanished for more than the allowed share of the correctly classified images.

    Args:
        largest_N: by loss, the l-inf norm of the gradient of each correctly classified image.
    """
    vanished = {
        loss: int((~((size_N >= MIN_GRADIENT) & size_N.isfinite())).sum())
        for loss, size_N in largest_N.items()
    }
    (n,) = {len(size_N) for size_N in largest_N.values()}
    return _check(
        "nonzero gradients",
        not any(too_many(count, n) for count in vanished.values()),
        f"of {n:,} images that are correct the gradient vanishes at "
        + " and ".join(f"{count:,} on {loss}" for loss, count in vanished.items()),
        "attacks stay where they start: look for rounding, or for logits so large that a softmax "
        "of them is 0 or 1 in float32 (on ce alone: attack with loss=dlr)",
    )


# Checks of the order of two attacks.


def too_many(count: int, n: int) -> bool:
    """Return whether the share ``count / n`` is significantly above the allowed share ``ALLOWED``:
    by an exact test that is wrong in at most ``FALSE_ALARMS`` of all audits."""
    return exceeds(count, n, ALLOWED, FALSE_ALARMS)


def count_missed(first_N: Tensor, second_N: Tensor) -> int:
    """Return the number of images that the first attack clearly fools and the second clearly does
    not.

    Args:
        first_N: share of each image's draws that are robust to the first attack, or a mask.
        second_N: share that is robust to the second.
    """
    return int(((first_N <= CLEAR) & (second_N >= 1 - CLEAR)).sum())


def iterative_beats_one_step(one_step_N: Tensor, iterative_N: Tensor) -> Check:
    """Check that PGD fools every image that a single step of length eps fools (Carlini et al.
    2019).

    Args:
        one_step_N: bool, which images are robust to one step of the whole budget.
        iterative_N: bool, which are robust to PGD.
    """
    n, missed = len(one_step_N), count_missed(one_step_N, iterative_N)
    return _check(
        "iterative beats one step",
        not too_many(missed, n),
        f"one step fools {_fooled(one_step_N)} and PGD {_fooled(iterative_N)} of {n:,} images; "
        f"only the one step fools {missed:,}",
        "the gradient misleads an attack that follows it: its accuracies are too high",
    )


def monotone_in_eps(robust_N: Mapping[str, Tensor]) -> Check:
    """Check that PGD with a larger radius fools every image that PGD with a smaller radius fools
    (Carlini et al. 2019).

    Args:
        robust_N: bool, by radius, from 0 up: which images are robust.
    """
    n = len(next(iter(robust_N.values())))
    missed = [
        (count_missed(smaller, larger), below, above)
        for (below, smaller), (above, larger) in pairwise(robust_N.items())
    ]
    worst, below, above = max(missed, key=lambda step: step[0])
    path = ", ".join(f"{eps}: {n - _count_fooled(robust)}" for eps, robust in robust_N.items())
    return _check(
        "monotone in eps",
        not too_many(worst, n),
        f"of {n:,} images are robust at eps {path}; "
        + (
            f"{worst:,} are fooled at {below} and robust at {above}"
            if worst
            else "all that are fooled stay fooled"
        ),
        "a larger ball contains the smaller one: the search gets lost in it",
    )


def unbounded_reaches_zero(robust_N: Tensor, eps: float) -> Check:
    """Check that PGD fools every image if its ball contains all images (Carlini et al. 2019).

    The attack is PGD on cross-entropy and, where that fails, on DLR. An accuracy at chance is not
    enough: there the random start alone makes noise of every image, which a model classifies
    correctly by chance.

    Args:
        robust_N: bool, which images are robust.
        eps: the radius, in [0, 1] pixel units.
    """
    n, robust = len(robust_N), int((robust_N >= 1 - CLEAR).sum())
    return _check(
        "unbounded eps reaches 0",
        not too_many(robust, n),
        f"{_images(robust, n)} are robust at eps {eps:g}",
        "any picture is allowed there, even one of a different class: the attack gets stuck",
    )


def plateau(name: str, robust_N: Mapping[str, Tensor]) -> Check:
    """Check that PGD with more steps or restarts fools no additional images (Carlini et al. 2019).

    The last two attacks are compared; the others are in the finding.

    Args:
        name: name of the check.
        robust_N: bool, by attack, from the shortest to the longest: which images are robust.
    """
    (*_, (shorter, shorter_N), (_, longest_N)) = robust_N.items()
    n, newly_fooled = len(shorter_N), count_missed(longest_N, shorter_N)
    path = ", ".join(f"{attack} {_fooled(found_N)}" for attack, found_N in robust_N.items())
    return _check(
        name,
        not too_many(newly_fooled, n),
        f"of {n:,} images fooled: {path}; {newly_fooled:,} of the last are robust to {shorter}",
        "accuracies are still too high: measure with longer attacks until they stop decreasing",
    )


def does_not_win(
    name: str, attack: str, robust_N: Tensor, white_box_N: Tensor, meaning: str
) -> Check:
    """Check that the attacks that follow the model's own gradient fool every image that a different
    attack fools.

    Args:
        name: name of the check.
        attack: name of the different attack.
        robust_N: bool, which images are robust to it.
        white_box_N: bool, which are robust to all attacks that follow the gradient in the same
            ball.
        meaning: what it means if the check fails.
    """
    n, missed = len(robust_N), count_missed(robust_N, white_box_N)
    return _check(
        name,
        not too_many(missed, n),
        f"{attack} fools {_fooled(robust_N)} and attacks by the gradient {_fooled(white_box_N)} of "
        f"{n:,} images; only {attack} fools {missed:,}",
        meaning,
    )


def gradient_free_does_not_win(square_N: Tensor, white_box_N: Tensor) -> Check:
    """Check that no image is fooled by Square Attack alone, which uses no gradients (Carlini et al.
    2019; AutoAttack has the same flag)."""
    return does_not_win(
        "gradient-free does not win",
        "square",
        square_N,
        white_box_N,
        "gradients are masked: report the worst over both (pgd|square)",
    )


def smooth_backward_does_not_win(smooth_N: Tensor, white_box_N: Tensor) -> Check:
    """Check that no image is fooled only by an attack that follows the gradient of smooth relatives
    of the model's activations (`curricula.victim.smooth_backward`; BPDA, Athalye et al. 2018)."""
    return does_not_win(
        "smooth backward does not win",
        "the smooth backward pass",
        smooth_N,
        white_box_N,
        "activations that are constant by pieces, saturated or sparse mask gradients: accuracies "
        "are too high; attack with smooth relatives of them",
    )


def transfer_does_not_win(transfer_N: Tensor, white_box_N: Tensor) -> Check:
    """Check that no image is fooled only by an attack on a different model (Papernot et al. 2017;
    Carlini et al. 2019)."""
    return does_not_win(
        "transfer does not win",
        "the transfer",
        transfer_N,
        white_box_N,
        "the model's own gradient is worse than that of a different model: gradients are masked",
    )


def adaptive_keeps_up(adaptive_N: Tensor, pgd_N: Tensor) -> Check:
    """Check that APGD, the standard attack in l-2 and l-1, fools every image that PGD fools.

    Args:
        adaptive_N: bool, which images are robust to APGD.
        pgd_N: bool, which are robust to all PGD attacks in the same ball.
    """
    n, missed = len(adaptive_N), count_missed(pgd_N, adaptive_N)
    return _check(
        "adaptive attack keeps up",
        not too_many(missed, n),
        f"apgd fools {_fooled(adaptive_N)} and PGD {_fooled(pgd_N)} of {n:,} images; only PGD "
        f"fools {missed:,}",
        "the standard attack is misled here, and its accuracies are too high: report the worst "
        "over both (apgd|pgd)",
    )


def gradient_is_derivative(wrong_N: Mapping[str, Tensor]) -> Check:
    """Check that the gradient of the logits predicts their finite differences.

    Args:
        wrong_N: bool, by kind of direction, the images whose gradient does not.
    """
    kinds = {kind: int(wrong.sum()) for kind, wrong in wrong_N.items()}
    all_N = torch.stack([*wrong_N.values()]).any(0)
    return _check(
        "gradient is the derivative",
        not too_many(int(all_N.sum()), len(all_N)),
        f"of {len(all_N):,} images the gradient disagrees with finite differences for "
        + " and ".join(f"{count:,} along {kind} directions" for kind, count in kinds.items()),
        "the backward pass is not that of the logits, or they jump: attacks that follow it are "
        "misled",
    )


def _check(name: str, passed: bool, measured: str, meaning: str) -> Check:
    return Check(name=name, passed=passed, finding=measured if passed else f"{measured}: {meaning}")


def _images(count: int, n: int) -> str:
    return f"{count:,} of {n:,} images"


def _count_fooled(robust_N: Tensor) -> int:
    """Return the number of images that an attack fools in most draws."""
    return int((robust_N < 0.5).sum())


def _fooled(robust_N: Tensor) -> str:
    return f"{_count_fooled(robust_N):,}"
