"""The sanity checks of an audit: each a rule, applied to what was seen of a model.

Attacks are compared image by image, by one rule. Of two attacks the greater has more steps, more
restarts, a larger ball or a gradient, and perfect attacks would be in that order on every single
image. Real ones lose a few, so up to ``ALLOWED`` of all images may break the order: a check fails
where the images seen show, at ``QUANTILE``, that more do. Of 200 images these are 9 or more, of
1,000 images 31 or more. A model of which exactly the allowed share breaks the order fails a check
in one or two audits of a hundred, whatever their number of images; of the models for which the
checks are meant, tens of percent do.
"""

from collections.abc import Mapping
from itertools import pairwise

import attrs
import torch
from torch import Tensor

from curricula.evaluation.results import wilson_interval
from curricula.victim.equivalence import TOLERANCE

ALLOWED = 0.02  # of the images may break the order of two attacks
QUANTILE = 2.326  # of the normal distribution: one-sided 99 %
# An entry of a gradient that is smaller than its largest by float32's precision must still be a
# normal number: below this, entries of it are lost.
SMALLEST_GRADIENT = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps


@attrs.frozen(kw_only=True)
class Check:
    """One sanity check.

    Attributes:
        name: what should hold.
        passed: whether it does.
        finding: one sentence with what was measured and, where it failed, what that means.
    """

    name: str
    passed: bool
    finding: str


# The model itself.


def deterministic_forward(logits_NK: Tensor, again_NK: Tensor, alone_FK: Tensor) -> Check:
    """The same images twice give the same logits, and so does an image alone: up to rounding, a
    thousandth of the largest logit, as in curricula.victim.equivalence.

    A random model hides its gradient in noise (AutoAttack's flag for randomised defences), and one
    that looks at its batch shows an attack another function than the one that is measured.

    Args:
        logits_NK: of images.
        again_NK: of the same in a second pass.
        alone_FK: of the first few, each by itself.
    """
    twice = float((logits_NK - again_NK).abs().max())
    by_itself = float((logits_NK[: len(alone_FK)] - alone_FK).abs().max())
    largest = float(logits_NK.abs().max())
    return _check(
        "deterministic forward",
        twice <= TOLERANCE * largest and by_itself <= TOLERANCE * largest,  # NaN is neither
        f"logits of up to {largest:.3g} differ by {twice:.2g} in a second pass of "
        f"{len(logits_NK):,} images, and by {by_itself:.2g} for {len(alone_FK)} images alone",
        "the model draws random numbers or looks at its batch when at rest: take that out, or "
        "attack the mean over many draws",
    )


def logits_not_probabilities(logits_NK: Tensor) -> Check:
    """The outputs are finite and do not all lie from 0 to 1, as behind a softmax or a sigmoid.

    Cross-entropy then saturates where it should grow, and its gradient vanishes (Croce and Hein
    2020: softmax output). Log-probabilities are logits like others: a softmax takes them back.

    Args:
        logits_NK: of images.
    """
    low, high = float(logits_NK.min()), float(logits_NK.max())
    sums = logits_NK.sum(1)
    return _check(
        "logits, not probabilities",
        bool(logits_NK.isfinite().all()) and not (low >= 0 and high <= 1),
        f"outputs lie from {low:.3g} to {high:.3g}, and their sum for an image from "
        f"{float(sums.min()):.3g} to {float(sums.max()):.3g}",
        "these are probabilities or not finite: leave out the last softmax or sigmoid",
    )


def nonzero_gradients(largest_N: Mapping[str, Tensor]) -> Check:
    """An attack has a gradient to follow at the image, on every loss that it may ascend; AutoAttack
    flags zero gradients too, on DLR.

    That of an image has vanished if it is not finite, or so small in its largest entry that others
    are lost to float32 (``SMALLEST_GRADIENT``; mostly it is zero then). Fails where more than the
    allowed share of the images that the model gets right has none on one of the losses.

    Args:
        largest_N: by loss, the size of the largest entry of the gradient of each image that the
            model gets right.
    """
    vanished = {
        loss: int((~((size_N >= SMALLEST_GRADIENT) & size_N.isfinite())).sum())
        for loss, size_N in largest_N.items()
    }
    (n,) = {len(size_N) for size_N in largest_N.values()}
    return _check(
        "nonzero gradients",
        not any(too_many(count, n) for count in vanished.values()),
        f"of {n:,} images that are right the gradient vanishes at "
        + " and ".join(f"{count:,} on {loss}" for loss, count in vanished.items()),
        "attacks stay where they start: look for rounding, or for logits so large that a softmax "
        "of them is 0 or 1 in float32 (on ce alone: attack with loss=dlr)",
    )


# Two attacks and their order.


def too_many(count: int, n: int) -> bool:
    """Whether so many of n images show that more than the allowed share of all would: the lower
    end of the one-sided 99 % interval (Wilson 1927) lies above it."""
    return n > 0 and wilson_interval(count, n, QUANTILE)[0] > ALLOWED


def gained(lesser_N: Tensor, greater_N: Tensor) -> int:
    """Images that fall to one attack and stand under another, both given by who is right."""
    return int((~lesser_N & greater_N).sum())


def iterative_beats_one_step(one_step_N: Tensor, iterative_N: Tensor) -> Check:
    """What one step of the whole budget fells, an iterative attack fells too (Carlini et al.
    2019).

    Args:
        one_step_N: which images are right after one step of the whole budget.
        iterative_N: and after PGD.
    """
    n, missed = len(one_step_N), gained(one_step_N, iterative_N)
    return _check(
        "iterative beats one step",
        not too_many(missed, n),
        f"one step fells {_fallen(one_step_N)} and PGD {_fallen(iterative_N)} of {n:,} images; "
        f"{missed:,} fall to the one step alone",
        "the gradient misleads an attack that follows it: its figures are too high",
    )


def monotone_in_eps(right_N: Mapping[str, Tensor]) -> Check:
    """What PGD fells in a ball, it fells in every larger one (Carlini et al. 2019).

    Args:
        right_N: by radius, from 0 up, which images are right.
    """
    n = len(next(iter(right_N.values())))
    returned = [
        (gained(smaller, larger), below, above)
        for (below, smaller), (above, larger) in pairwise(right_N.items())
    ]
    worst, below, above = max(returned, key=lambda step: step[0])
    path = ", ".join(f"{eps}: {int(right.sum())}" for eps, right in right_N.items())
    return _check(
        "monotone in eps",
        not too_many(worst, n),
        f"of {n:,} images stand at eps {path}; "
        + (f"{worst:,} fall at {below} and stand at {above}" if worst else "none that fell stands"),
        "a larger ball holds the smaller one: the search gets lost in it",
    )


def unbounded_reaches_zero(right_N: Tensor, eps: float) -> Check:
    """In a ball that holds every image, PGD on cross-entropy and, where that fails, on DLR fells
    all (Carlini et al. 2019).

    Falling to chance is not enough: a random start alone makes noise of every image there, and of
    noise a model gets as many right.

    Args:
        right_N: which images are right.
        eps: the radius.
    """
    n, standing = len(right_N), int(right_N.sum())
    return _check(
        "unbounded eps reaches 0",
        not too_many(standing, n),
        f"{_images(standing, n)} stand at eps {eps:g}",
        "any picture is allowed there, one of another class too: the attack finds no way",
    )


def plateau(name: str, right_N: Mapping[str, Tensor]) -> Check:
    """More and more of the same ends up felling no more (Carlini et al. 2019). The last two are
    judged; what the first leaves standing is in the finding.

    Args:
        name: of the check.
        right_N: by name of the attack, from the least to the most, which images are right.
    """
    (*_, (less, less_N), (_, more_N)) = right_N.items()
    n, more_fallen = len(less_N), gained(more_N, less_N)
    path = ", ".join(f"{_fallen(fallen_N)} to {attack}" for attack, fallen_N in right_N.items())
    return _check(
        name,
        not too_many(more_fallen, n),
        f"of {n:,} images fall {path}; {more_fallen:,} of these stand under {less}",
        "the figures are still too high: measure with more, until they fall no further",
    )


def gradient_free_does_not_win(square_N: Tensor, white_box_N: Tensor) -> Check:
    """What Square Attack fells without a gradient, one of the PGD attacks fells with it: longer,
    restarted, or on DLR (Carlini et al. 2019; AutoAttack's flag for its Square Attack).

    Args:
        square_N: which images are right after Square Attack.
        white_box_N: which are right after all PGD attacks of the same ball.
    """
    n, missed = len(square_N), gained(square_N, white_box_N)
    return _check(
        "gradient-free does not win",
        not too_many(missed, n),
        f"square fells {_fallen(square_N)} and PGD {_fallen(white_box_N)} "
        f"of {n:,} images; {missed:,} fall to square alone",
        "gradients are masked: report the worst over PGD and square (pgd|square)",
    )


def _check(name: str, passed: bool, measured: str, meaning: str) -> Check:
    return Check(name=name, passed=passed, finding=measured if passed else f"{measured}: {meaning}")


def _images(count: int, n: int) -> str:
    return f"{count:,} of {n:,} images"


def _fallen(right_N: Tensor) -> str:
    return f"{int((~right_N).sum()):,}"
