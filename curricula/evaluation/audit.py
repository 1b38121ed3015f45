"""Whether the figures of a model can be believed: sanity checks against gradient masking.

An attack that fails says nothing of a model that misleads it. So attacks are compared that a sound
evaluation puts in order (Carlini et al. 2019, "On Evaluating Adversarial Robustness"), and
the model is looked at for what AutoAttack flags (Croce and Hein 2020, and their code).

Attacks are compared image by image, by one rule. Of two attacks the greater has more steps, more
restarts, a larger ball or a gradient, and perfect attacks would be in that order on every single
image. Real ones lose a few, so up to ``ALLOWED`` of all images may break the order: a check fails
where the images seen show, at ``QUANTILE``, that more do. Of 200 images these are 9 or more, of
1,000 images 31 or more. A model of which exactly the allowed share breaks the order fails a check
in one or two audits of a hundred, whatever their number of images; of the models for which the
checks are meant, tens of percent do.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from curricula.arithmetic import full_float32
from curricula.binding import parse_number
from curricula.curriculum import Threat
from curricula.data.dataset import AnySplit, DataSet, in_order
from curricula.errors import UserError
from curricula.evaluation.accuracy import BATCH_SIZE, Measured, predictions, wilson_interval
from curricula.evaluation.threats import TEST_REL_STEP, TEST_STEPS
from curricula.expression import Number
from curricula.faithful import FEW, ROUNDING
from curricula.interfaces import Norm
from curricula.losses import ATTACK_LOSSES
from curricula.victim import ModelVictim

IMAGES = 200  # a few minutes of a small network on two cores
ALLOWED = 0.02  # of the images may break the order of two attacks
QUANTILE = 2.326  # of the normal distribution: one-sided 99 %
QUERIES = 1000
STEPS, MORE_STEPS = TEST_STEPS, 100
RESTARTS, MORE_RESTARTS = 5, 10
MULTIPLES = (1 / 4, 1 / 2, 1, 2, 4)  # of the budget, as far as they lie below the unbounded one
# An entry of a gradient that is smaller than its largest by float32's precision must still be a
# normal number: below this, entries of it are lost.
SMALLEST_GRADIENT = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps

CLEAN, ONE_STEP, SQUARE, UNBOUNDED = "clean", "one step", "square", "unbounded"
PGD, PGD_DLR = f"pgd-{STEPS}", f"pgd-{STEPS} on dlr"
PGD_LONGER = f"pgd-{MORE_STEPS}"
PGD_RESTARTED = f"pgd-{STEPS} with {RESTARTS} restarts"
PGD_RESTARTED_MORE = f"pgd-{STEPS} with {MORE_RESTARTS} restarts"
WHITE_BOX = (PGD, PGD_DLR, PGD_LONGER, PGD_RESTARTED, PGD_RESTARTED_MORE)


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

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return attrs.asdict(self)


@attrs.frozen(kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        eps: radius of the ball, in [0, 1] pixel units, as an expression writes it.
        norm: of the ball.
        n: how many images.
        seed: of the random draws.
        checks: each with its finding.
        left_out: what could not be checked here, and why; one sentence each.
        attacks: the accuracy under each attack that the checks compare.
    """

    eps: str
    norm: Norm
    n: int
    seed: int
    checks: tuple[Check, ...]
    left_out: tuple[str, ...]
    attacks: tuple[Measured, ...]

    @property
    def passed(self) -> bool:
        """Whether every check has passed."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "passed": self.passed,
            "eps": self.eps,
            "norm": self.norm,
            "n": self.n,
            "seed": self.seed,
            "checks": [check.as_json() for check in self.checks],
            "left_out": list(self.left_out),
            "attacks": [attack.as_json() for attack in self.attacks],
        }


def audit(
    model: nn.Module,
    data: DataSet,
    split: AnySplit,
    *,
    eps: float | None = None,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int | None = None,
    after_batch: Callable[[], None] = lambda: None,
) -> Audit:
    """Check a model for what makes attacks fail without making it robust.

    Passing proves nothing: it says that these attacks work as attacks should. A failed check says
    that robust accuracies of this model are too high, or mean something else.

    The global random state, from which a random model draws, is seeded for the audit and put back.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: whose images they are.
        split: the images; a few hundred will do.
        eps: radius of the ball, in [0, 1] pixel units, above 0 and below the distance that holds
            every image; by default the data set's budget in this norm.
        norm: ``linf``, ``l2`` or ``l1``; the gradient-free attack knows ``linf`` alone.
        seed: of the random streams.
        batch_size: images at once, as for `curricula.measure`.
        after_batch: called after each batch of each attack.

    Raises:
        UserError: an eps out of range; none given and none that the data set states; a model that
            cannot be differentiated in its images.
    """
    radius = _radius(eps, norm, data)
    device = split.labels.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        looks, classes = _look(model, data, split, batch_size or BATCH_SIZE)
        threats = {
            name: Threat.parse(text)
            for name, text in _attacks(radius, norm, _unbounded(norm, data), classes).items()
        }
        predicted = predictions(
            model,
            data,
            split,
            threats,
            seed=seed,
            batch_size=batch_size,
            after_batch=after_batch,
        )
    found = {name: (predicted[name] == split.labels).cpu() for name in threats}
    left_out = []
    if classes < 3:
        left_out.append(f"the DLR loss needs three classes or more, and there are {classes}")
    if SQUARE not in found:
        left_out.append(f"the gradient-free attack, square, is one in linf, not in {norm}")
    return Audit(
        eps=str(radius),
        norm=norm,
        n=len(split),
        seed=seed,
        checks=(*looks, *_compare(found, radius, norm, data)),
        left_out=tuple(left_out),
        attacks=tuple(
            Measured(
                name=name,
                threat=str(threats[name]),
                correct=int(right_N.sum()),
                fooled=int((predicted[name] != predicted[CLEAN]).sum()),
                n=len(split),
            )
            for name, right_N in found.items()
        ),
    )


def _radius(eps: float | None, norm: Norm, data: DataSet) -> Number:
    if eps is not None:
        radius = Number.of(eps)
    elif norm in data.budgets:
        radius = parse_number(data.budgets[norm])
    else:
        raise UserError(f"{data.name} states no budget in {norm}; give eps")
    whole = _unbounded(norm, data)
    if not 0 < radius.value < whole:
        raise UserError(
            f"eps must lie above 0 and below {whole:g}, which in {norm} holds every image, "
            f"not {radius}"
        )
    return radius


def _unbounded(norm: Norm, data: DataSet) -> float:
    """The radius of a ball about any image that holds them all."""
    values = data.in_channels * data.image_size**2
    return {"linf": 1.0, "l2": math.sqrt(values), "l1": float(values)}[norm]


def _attacks(radius: Number, norm: Norm, whole: float, classes: int) -> dict[str, str]:
    """The threats to measure, by name; those of equal text are run once."""

    def pgd(eps: Number, steps: int = STEPS, **more: object) -> str:
        given = {"norm": norm, "steps": steps, "rel_step": TEST_REL_STEP, **more}
        return f"pgd({eps}, {', '.join(f'{key}={value}' for key, value in given.items())})"

    everywhere = Number.of(whole)
    found = {
        CLEAN: "clean",
        ONE_STEP: pgd(radius, 1, rel_step=1, random_start="false"),
        PGD: pgd(radius),
        PGD_LONGER: pgd(radius, MORE_STEPS),
        PGD_RESTARTED: pgd(radius, restarts=RESTARTS),
        PGD_RESTARTED_MORE: pgd(radius, restarts=MORE_RESTARTS),
        **{_within(eps): pgd(eps) for eps in _grid(radius, whole)},
        UNBOUNDED: pgd(everywhere),
    }
    if classes > 2:
        found[PGD_DLR] = pgd(radius, loss="dlr")
        found[UNBOUNDED] += "|" + pgd(everywhere, loss="dlr")
    if norm == "linf":
        found[SQUARE] = f"square({radius}, queries={QUERIES})"
    return found


def _grid(radius: Number, whole: float) -> list[Number]:
    return [Number.of(radius.value * times) for times in MULTIPLES if radius.value * times < whole]


def _within(eps: Number) -> str:
    return f"{PGD} within {eps}"


# The model itself.


def _look(
    model: nn.Module, data: DataSet, split: AnySplit, batch_size: int
) -> tuple[list[Check], int]:
    """The checks that need no attack, and how many logits an image has."""
    victim = ModelVictim(model)
    logits, again = [], []
    largest: dict[str, list[Tensor]] = {}
    with full_float32():
        for batch in in_order(split, batch_size):
            x = data.images(batch.pixels)
            with torch.no_grad():
                logits.append(victim.logits(x))
                again.append(victim.logits(x))
            # On DLR a misclassified image may well have none: where its label ranks third, it is 1.
            right = logits[-1].argmax(1) == batch.labels
            for name in ("ce", "dlr") if logits[0].shape[1] > 2 else ("ce",):
                size_N = _largest_entry(victim, x, batch.labels, name)
                largest.setdefault(name, []).append(size_N[right])
        first = data.images(split[slice(FEW)].held().pixels)
        with torch.no_grad():
            alone = torch.cat([victim.logits(image[None]) for image in first])
    logits_NK = torch.cat(logits)
    checks = [
        deterministic_forward(logits_NK, torch.cat(again), alone),
        logits_not_probabilities(logits_NK),
        nonzero_gradients({name: torch.cat(sizes) for name, sizes in largest.items()}),
    ]
    return checks, logits_NK.shape[1]


def _largest_entry(victim: ModelVictim, x_NCHW: Tensor, y_N: Tensor, loss: str) -> Tensor:
    """The size of the largest entry of each image's gradient, (N,)."""
    try:
        gradient, _, _ = victim.gradient(x_NCHW, y_N, ATTACK_LOSSES[loss])
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "not have been used" not in str(error):
            raise
        raise UserError(
            "the model cannot be differentiated in its images, so that no attack can follow it; "
            "let its code detach nothing, or measure it with square alone"
        ) from error
    return gradient.abs().amax(dim=(1, 2, 3))


def deterministic_forward(logits_NK: Tensor, again_NK: Tensor, alone_FK: Tensor) -> Check:
    """The same images twice give the same logits, and so does an image alone: up to rounding, a
    thousandth of the largest logit, as in curricula.faithful.

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
        max(twice, by_itself) <= ROUNDING * largest,
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


def _compare(right: Mapping[str, Tensor], radius: Number, norm: Norm, data: DataSet) -> list[Check]:
    white_box = torch.stack([right[name] for name in WHITE_BOX if name in right]).all(0)
    whole = _unbounded(norm, data)
    grid = {"0": right[CLEAN]}
    grid |= {str(eps): right[_within(eps)] for eps in _grid(radius, whole)}
    grid[str(Number.of(whole))] = right[UNBOUNDED]
    checks = [
        iterative_beats_one_step(right[ONE_STEP], right[PGD]),
        monotone_in_eps(grid),
        unbounded_reaches_zero(right[UNBOUNDED], whole),
        plateau("more steps plateau", {name: right[name] for name in (PGD, PGD_LONGER)}),
        plateau(
            "restarts plateau",
            {name: right[name] for name in (PGD, PGD_RESTARTED, PGD_RESTARTED_MORE)},
        ),
    ]
    if SQUARE in right:
        checks.append(gradient_free_does_not_win(right[SQUARE], white_box))
    return checks


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
        f"one step fells {_fallen(one_step_N)} and {PGD} {_fallen(iterative_N)} of {n:,} images; "
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
        f"square with {QUERIES:,} queries fells {_fallen(square_N)} and PGD {_fallen(white_box_N)} "
        f"of {n:,} images; {missed:,} fall to square alone",
        "gradients are masked: report the worst over PGD and square (pgd|square)",
    )


def _check(name: str, passed: bool, measured: str, meaning: str) -> Check:
    return Check(name=name, passed=passed, finding=measured if passed else f"{measured}: {meaning}")


def _images(count: int, n: int) -> str:
    return f"{count:,} of {n:,} images"


def _fallen(right_N: Tensor) -> str:
    return f"{int((~right_N).sum()):,}"
