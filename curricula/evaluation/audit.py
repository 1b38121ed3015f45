"""Audit a model: check for gradient masking, which makes its measured robust accuracy too high.

If an attack fails, the model may be robust or may only mislead it. So the audit compares attacks
whose order is known in a sound evaluation (Carlini et al. 2019, "On Evaluating Adversarial
Robustness"), and checks the model for what AutoAttack flags (Croce and Hein 2020, and their code).
"""

import math
from collections.abc import Callable, Mapping

import attrs
import torch
from torch import Tensor, nn

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike, in_order
from curricula.errors import UserError
from curricula.evaluation.accuracy import BATCH_SIZE, predictions
from curricula.evaluation.audit_checks import (
    Check,
    deterministic_forward,
    gradient_free_does_not_win,
    iterative_beats_one_step,
    logits_not_probabilities,
    monotone_in_eps,
    nonzero_gradients,
    plateau,
    unbounded_reaches_zero,
)
from curricula.evaluation.intervals import wilson_interval
from curricula.evaluation.names import CLEAN
from curricula.evaluation.progress import EvaluationProgress
from curricula.evaluation.results import ThreatResult
from curricula.evaluation.threats import TEST_REL_STEP, TEST_STEPS
from curricula.expressions.syntax import Number, parse_number
from curricula.interfaces import Norm
from curricula.losses import ATTACK_LOSSES
from curricula.runtime.precision import no_tf32
from curricula.runtime.records import fields_of, register_json
from curricula.runtime.tables import html_table
from curricula.victim.equivalence import MAX_IMAGES
from curricula.victim.model_victim import ModelVictim

ENOUGH_IMAGES = 100  # images; fewer of an audit bring a caveat
QUERIES = 1000  # queries of Square Attack
# Gradient steps of PGD, then its random starts.
STEPS, MORE_STEPS = TEST_STEPS, 100
RESTARTS, MORE_RESTARTS = 5, 10
MULTIPLES = (1 / 4, 1 / 2, 1, 2, 4)  # multiples of the budget, if below the unbounded radius

ONE_STEP, SQUARE, UNBOUNDED = "one step", "square", "unbounded"
PGD, PGD_DLR = f"pgd-{STEPS}", f"pgd-{STEPS} on dlr"
PGD_LONGER = f"pgd-{MORE_STEPS}"
PGD_RESTARTED = f"pgd-{STEPS} with {RESTARTS} restarts"
PGD_RESTARTED_MORE = f"pgd-{STEPS} with {MORE_RESTARTS} restarts"
WHITE_BOX = (PGD, PGD_DLR, PGD_LONGER, PGD_RESTARTED, PGD_RESTARTED_MORE)


@attrs.frozen(kw_only=True, repr=False)
class Audit:
    """The checks of one model for gradient masking, with their findings and the accuracy under each
    attack.

    Attributes:
        eps: radius of the ball, in [0, 1] pixel units, as an expression writes it.
        norm: norm of the ball.
        n: number of images.
        seed: seed of the random draws.
        checks: the checks and their findings.
        left_out: checks that were not possible and why, one sentence each.
        attacks: the result under each attack that the checks compare.
    """

    eps: str
    norm: Norm
    n: int
    seed: int
    checks: tuple[Check, ...]
    left_out: tuple[str, ...]
    attacks: tuple[ThreatResult, ...]

    def __repr__(self) -> str:
        failed = [check.name for check in self.checks if not check.passed]
        found = f"{len(self.checks) - len(failed)} of {len(self.checks)} checks passed"
        names = f", not {', '.join(failed)}" if failed else ""
        return f"Audit(eps {self.eps} in {self.norm}, {self.n:,} images: {found}{names})"

    def _repr_html_(self) -> str:
        rows = [
            (check.name, "passed" if check.passed else "FAILED", check.finding)
            for check in self.checks
        ]
        caption = f"Audit at eps {self.eps} in {self.norm}, {self.n:,} images"
        note = ". ".join(filter(None, [self.caveat, *self.left_out]))
        return html_table(caption, ("check", "result", "finding"), rows, note=note)

    @property
    def passed(self) -> bool:
        """True if every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def caveat(self) -> str:
        """A sentence on how little the checks say if there are too few images; an empty text if
        there are enough."""
        if self.n >= ENOUGH_IMAGES:
            return ""
        images = "1 image says" if self.n == 1 else f"{self.n} images say"
        _, share = wilson_interval(0, self.n)
        return (
            f"{images} little: where a check passed, up to {100 * share:.0f} % of all images may "
            f"break its rule; measure {ENOUGH_IMAGES} or more (--limit)"
        )


register_json(Audit, lambda found: {"passed": found.passed, **fields_of(found)})


def audit(
    model: nn.Module,
    data: DataSet,
    split: SplitLike,
    *,
    eps: float | None = None,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Audit:
    """Return the checks of a model for gradient masking, which makes its measured robust accuracy
    too high.

    Passing proves nothing: it says that these attacks work as attacks should. A failed check says
    that robust accuracies of this model are too high, or mean something else.

    The global random state, from which a random model draws, is seeded and restored.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: the data set of the images.
        split: the images; a few hundred are enough.
        eps: radius of the ball, in [0, 1] pixel units, above 0 and below the radius that contains
            every image; by default the data set's budget in this norm.
        norm: ``linf``, ``l2`` or ``l1``; the gradient-free attack exists only in ``linf``.
        seed: seed of the random streams.
        batch_size: images at once, as for `curricula.evaluation.evaluate_threats`.
        progress: called with the share of the attacks that is done, in [0, 1], after each batch.

    Raises:
        UserError: an eps out of range; no eps, and no budget of the data set; a model that cannot
            be differentiated with respect to its images.
    """
    radius = _radius(eps, norm, data)
    device = split.labels.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model_checks, classes = _check_model(model, data, split, batch_size or BATCH_SIZE)
        threats = {
            name: Threat.parse(text)
            for name, text in _attacks(radius, norm, _unbounded(norm, data), classes).items()
        }
        work = EvaluationProgress(threats.values(), progress)
        predicted = predictions(
            model,
            data,
            split,
            threats,
            seed=seed,
            batch_size=batch_size,
            began=work.began,
            after_batch=work.after_batch,
            notices=False,  # one of the checks
        )
    robust = {name: (predicted[name] == split.labels).cpu() for name in threats}
    left_out = []
    if classes < 3:
        left_out.append(f"the DLR loss needs three classes or more, and there are {classes}")
    if SQUARE not in robust:
        left_out.append(f"the gradient-free attack, square, is run in linf and not in {norm}")
    return Audit(
        eps=str(radius),
        norm=norm,
        n=len(split),
        seed=seed,
        checks=(*model_checks, *_check_attacks(robust, radius, norm, data)),
        left_out=tuple(left_out),
        attacks=tuple(
            ThreatResult(
                name=name,
                threat=str(threats[name]),
                correct=int(robust_N.sum()),
                fooled=int((predicted[name] != predicted[CLEAN]).sum()),
                n=len(split),
            )
            for name, robust_N in robust.items()
        ),
    )


def _radius(eps: float | None, norm: Norm, data: DataSet) -> Number:
    """Return the radius of the ball to attack in, in [0, 1] pixel units: ``eps``, or else the data
    set's budget. Check that it is below the radius that contains all images."""
    if eps is not None:
        radius = Number.of(eps)
    elif norm in data.budgets:
        radius = parse_number(data.budgets[norm])
    else:
        raise UserError(f"{data.name} states no budget in {norm}; give eps")
    whole = _unbounded(norm, data)
    if not 0 < radius.value < whole:
        raise UserError(
            f"eps must lie above 0 and below {whole:g}, the {norm} radius that contains every "
            f"image, not {radius}"
        )
    return radius


def _unbounded(norm: Norm, data: DataSet) -> float:
    """Return the radius, in [0, 1] pixel units, at which the ball around any image contains all
    images."""
    values = math.prod(data.image_shape)
    return {"linf": 1.0, "l2": math.sqrt(values), "l1": float(values)}[norm]


def _attacks(radius: Number, norm: Norm, whole: float, classes: int) -> dict[str, str]:
    """Return the expression of each attack to measure, by name; equal expressions run once."""

    def pgd(eps: Number, steps: int = STEPS, **more: object) -> str:
        """Return the expression of PGD with radius ``eps``, in the norm of the audit."""
        given = {"norm": norm, "steps": steps, "rel_step": TEST_REL_STEP, **more}
        return f"pgd({eps}, {', '.join(f'{key}={value}' for key, value in given.items())})"

    unbounded = Number.of(whole)
    found = {
        CLEAN: "clean",
        ONE_STEP: pgd(radius, 1, rel_step=1, random_start="false"),
        PGD: pgd(radius),
        PGD_LONGER: pgd(radius, MORE_STEPS),
        PGD_RESTARTED: pgd(radius, restarts=RESTARTS),
        PGD_RESTARTED_MORE: pgd(radius, restarts=MORE_RESTARTS),
        **{_within(eps): pgd(eps) for eps in _grid(radius, whole)},
        UNBOUNDED: pgd(unbounded),
    }
    if classes > 2:
        found[PGD_DLR] = pgd(radius, loss="dlr")
        found[UNBOUNDED] += "|" + pgd(unbounded, loss="dlr")
    if norm == "linf":
        found[SQUARE] = f"square({radius}, queries={QUERIES})"
    return found


def _grid(radius: Number, whole: float) -> list[Number]:
    """Return the radii at which PGD is compared, in [0, 1] pixel units: multiples of ``radius``
    below ``whole``."""
    return [Number.of(radius.value * times) for times in MULTIPLES if radius.value * times < whole]


def _within(eps: Number) -> str:
    """Return the name that PGD with radius ``eps`` has among the attacks."""
    return f"{PGD} within {eps}"


def _check_model(
    model: nn.Module, data: DataSet, split: SplitLike, batch_size: int
) -> tuple[list[Check], int]:
    """Return (checks, number of classes), where the checks use only the model's logits and
    gradients on the unperturbed images."""
    victim = ModelVictim(model)
    logits, again = [], []
    largest: dict[str, list[Tensor]] = {}
    with no_tf32():
        for batch in in_order(split, batch_size):
            x = data.images(batch.pixels)
            with torch.no_grad():
                logits.append(victim.logits(x))
                again.append(victim.logits(x))
            # DLR is constant on misclassified images whose label ranks third: leave them out.
            correct = logits[-1].argmax(1) == batch.labels
            for name in ("ce", "dlr") if logits[0].shape[1] > 2 else ("ce",):
                size_N = _largest_entry(victim, x, batch.labels, name)
                largest.setdefault(name, []).append(size_N[correct])
        first = data.images(split[slice(MAX_IMAGES)].load().pixels)
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
    """Return the l-inf norm of the gradient of a loss with respect to each image, (N,)."""
    gradient, _, _ = victim.gradient(x_NCHW, y_N, ATTACK_LOSSES[loss])
    return gradient.abs().amax(dim=(1, 2, 3))


def _check_attacks(
    robust: Mapping[str, Tensor], radius: Number, norm: Norm, data: DataSet
) -> list[Check]:
    """Return the audit's checks for gradient masking, which compare the images that stay robust
    under each attack, from one mask (N,) per attack."""
    white_box = torch.stack([robust[name] for name in WHITE_BOX if name in robust]).all(0)
    whole = _unbounded(norm, data)
    grid = {"0": robust[CLEAN]}
    grid |= {str(eps): robust[_within(eps)] for eps in _grid(radius, whole)}
    grid[str(Number.of(whole))] = robust[UNBOUNDED]
    checks = [
        iterative_beats_one_step(robust[ONE_STEP], robust[PGD]),
        monotone_in_eps(grid),
        unbounded_reaches_zero(robust[UNBOUNDED], whole),
        plateau("more steps plateau", {name: robust[name] for name in (PGD, PGD_LONGER)}),
        plateau(
            "restarts plateau",
            {name: robust[name] for name in (PGD, PGD_RESTARTED, PGD_RESTARTED_MORE)},
        ),
    ]
    if SQUARE in robust:
        checks.append(gradient_free_does_not_win(robust[SQUARE], white_box))
    return checks
