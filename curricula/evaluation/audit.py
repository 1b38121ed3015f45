"""Audit a model: check for gradient masking, which makes its measured robust accuracy too high.

If an attack fails, the model may be robust or may only mislead it. So the audit compares attacks
whose order is known in a sound evaluation (Carlini et al. 2019, "On Evaluating Adversarial
Robustness"), and checks the model for what AutoAttack flags (Croce and Hein 2020, and their code).
"""

import math
from collections.abc import Callable, Iterable, Mapping

import attrs
import torch
from torch import Tensor, nn

from curricula.curriculum import Threat
from curricula.data.dataset import DataSet, SplitLike, in_order
from curricula.errors import UserError
from curricula.evaluation.accuracy import BATCH_SIZE, Predicted, all_predicted
from curricula.evaluation.audit_checks import (
    Check,
    adaptive_keeps_up,
    deterministic_forward,
    gradient_free_does_not_win,
    gradient_is_derivative,
    iterative_beats_one_step,
    logits_not_probabilities,
    monotone_in_eps,
    nonzero_gradients,
    plateau,
    smooth_backward_does_not_win,
    transfer_does_not_win,
    unbounded_reaches_zero,
)
from curricula.evaluation.finite_differences import pixel_radius, wrong_gradients
from curricula.evaluation.intervals import wilson_interval
from curricula.evaluation.names import CLEAN
from curricula.evaluation.progress import EvaluationProgress
from curricula.evaluation.results import ThreatResult, threat_result
from curricula.evaluation.threats import TEST_REL_STEP, TEST_STEPS, standard_attack
from curricula.evaluation.transfer import plain_copy
from curricula.expressions.syntax import Number, parse_number
from curricula.interfaces import Norm, Victim
from curricula.losses import ATTACK_LOSSES
from curricula.runtime.precision import no_tf32
from curricula.runtime.random_state import seed_torch
from curricula.runtime.records import fields_of, register_json
from curricula.runtime.tables import html_table
from curricula.victim.averaged import differ
from curricula.victim.equivalence import MAX_IMAGES
from curricula.victim.model_victim import ModelVictim
from curricula.victim.smooth_backward import with_smooth_backward

ENOUGH_IMAGES = 100  # images; fewer of an audit bring a caveat
QUERIES = 1000  # queries of Square Attack
# Gradient steps of PGD, then its random starts.
STEPS, MORE_STEPS = TEST_STEPS, 100
RESTARTS, MORE_RESTARTS = 5, 10
# Draws of a random network: those that classify an image, and those that gradients are averages of.
DRAWS = 10
EOT, MORE_EOT = 5, 20
MULTIPLES = (1 / 4, 1 / 2, 1, 2, 4)  # multiples of the budget, if below the unbounded radius

ONE_STEP, SQUARE, UNBOUNDED = "one step", "square", "unbounded"
PGD, PGD_DLR = f"pgd-{STEPS}", f"pgd-{STEPS} on dlr"
PGD_LONGER = f"pgd-{MORE_STEPS}"
PGD_RESTARTED = f"pgd-{STEPS} with {RESTARTS} restarts"
PGD_RESTARTED_MORE = f"pgd-{STEPS} with {MORE_RESTARTS} restarts"
PGD_MORE_DRAWS = f"pgd-{STEPS} on {MORE_EOT} draws"
ADAPTIVE, SMOOTH, TRANSFER = "apgd", "smooth backward", "transfer"
ALL_PGD = (PGD, PGD_DLR, PGD_LONGER, PGD_RESTARTED, PGD_RESTARTED_MORE, PGD_MORE_DRAWS)
WHITE_BOX = (*ALL_PGD, ADAPTIVE)


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
        """A sentence on how little the checks say if there are too few images, or too few correct
        ones; an empty text if there are enough."""
        correct = next((each.correct for each in self.attacks if each.name == CLEAN), self.n)
        if self.n >= ENOUGH_IMAGES > correct:
            return (
                f"{correct} of {self.n:,} images are correct without an attack, and only these can "
                f"break a rule on the order of attacks; measure {ENOUGH_IMAGES} correct ones or "
                "more (--limit)"
            )
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
    transfer_from: nn.Module | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Audit:
    """Return the checks of a model for gradient masking, which makes its measured robust accuracy
    too high.

    Passing proves nothing: it says that these attacks work as attacks should. A failed check says
    that robust accuracies of this model are too high, or mean something else.

    A model that draws random numbers is measured by the majority of several draws, and attacked by
    the mean gradient of several draws.

    The global random state, from which a random model draws, is seeded and restored.

    Args:
        model: a classifier of images in [0, 1], on the split's device. It is not changed.
        data: the data set of the images.
        split: the images; a few hundred are enough.
        eps: radius of the ball, in [0, 1] pixel units, above 0 and below the radius that contains
            every image; by default the data set's budget in this norm.
        norm: ``linf``, ``l2`` or ``l1``.
        seed: seed of the random streams.
        batch_size: images at once, as for `curricula.evaluation.evaluate_threats`.
        transfer_from: a different classifier of the same images, on the same device, from which
            adversarial images are transferred; by default a copy of the model that is trained on
            some training images, where it can be.
        progress: called with the share of the attacks that is done, in [0, 1], after each batch.

    Raises:
        UserError: an eps out of range; no eps, and no budget of the data set; a model that cannot
            be differentiated with respect to its images.
    """
    radius = _radius(eps, norm, data)
    device = split.labels.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_torch(seed)
        size = batch_size or BATCH_SIZE
        properties = _check_model(model, data, split, size, radius.value, norm, seed)
        left_out = properties.left_out()
        texts = _attacks(radius, norm, _unbounded(norm, data), properties)
        if transfer_from is None:
            try:
                transfer_from = plain_copy(model, data, seed=seed, device=device)
            except UserError as error:
                left_out.append(f"the transfer attack, because {error} (give transfer_from)")
        if transfer_from is None:
            del texts[TRANSFER]
        threats = {name: Threat.parse(text) for name, text in texts.items()}
        work = EvaluationProgress(threats.values(), progress)

        def predicted(
            names: Iterable[str], attacked: Callable[[Victim], Victim]
        ) -> dict[str, Predicted]:
            return all_predicted(
                model,
                data,
                split,
                {name: threats[name] for name in names},
                seed=seed,
                batch_size=batch_size,
                draws=DRAWS if properties.is_random else None,
                began=work.began,
                after_batch=work.after_batch,
                notices=False,  # one of the checks
                attacked=attacked,
            )

        found = predicted(threats.keys() - {SMOOTH, TRANSFER}, lambda victim: victim)
        found |= predicted([SMOOTH], with_smooth_backward)
        if transfer_from is not None:
            source = ModelVictim(transfer_from)
            found |= predicted([TRANSFER], lambda victim: source)
    robust = {name: found[name].share_correct(split.labels).cpu() for name in threats}
    return Audit(
        eps=str(radius),
        norm=norm,
        n=len(split),
        seed=seed,
        checks=(*properties.checks, *_check_attacks(robust, radius, norm, data)),
        left_out=tuple(left_out),
        attacks=tuple(
            threat_result(
                name,
                str(threat),
                found[name].class_N,
                clean_N=found[CLEAN].class_N,
                labels_N=split.labels,
                draws=found[name].counts(split.labels),
            )
            for name, threat in threats.items()
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


def _attacks(radius: Number, norm: Norm, whole: float, properties: "_Properties") -> dict[str, str]:
    """Return the expression of each attack to measure, by name; equal expressions run once."""
    eot = {"eot": EOT} if properties.is_random else {}

    def pgd(eps: Number, steps: int = STEPS, **more: object) -> str:
        """Return the expression of PGD with radius ``eps``, in the norm of the audit."""
        given = {"norm": norm, "steps": steps, "rel_step": TEST_REL_STEP, **eot, **more}
        return f"pgd({eps}, {', '.join(f'{key}={value}' for key, value in given.items())})"

    def apgd() -> str:
        """Return the expression of one run of APGD."""
        draws = f", eot={EOT}" if eot else ""
        return f"apgd({radius}, norm={norm}, steps={MORE_STEPS}{draws})"

    unbounded = Number.of(whole)
    found = {
        CLEAN: "clean",
        ONE_STEP: pgd(radius, 1, rel_step=1, random_start="false"),
        PGD: pgd(radius),
        PGD_LONGER: pgd(radius, MORE_STEPS),
        **{_within(eps): pgd(eps) for eps in _grid(radius, whole)},
        UNBOUNDED: pgd(unbounded),
        SMOOTH: pgd(radius) if norm == "linf" else apgd(),
        TRANSFER: pgd(radius) if norm == "linf" else apgd(),
    }
    if properties.classes > 2:
        found[UNBOUNDED] += "|" + pgd(unbounded, loss="dlr")
    if properties.is_random:
        found[PGD_MORE_DRAWS] = pgd(radius, eot=MORE_EOT)
    else:
        found[PGD_RESTARTED] = pgd(radius, restarts=RESTARTS)
        found[PGD_RESTARTED_MORE] = pgd(radius, restarts=MORE_RESTARTS)
        found[SQUARE] = f"square({radius}, norm={norm}, queries={QUERIES})"
        if properties.classes > 2:
            found[PGD_DLR] = pgd(radius, loss="dlr")
    if norm != "linf":
        found[ADAPTIVE] = apgd() if eot else str(standard_attack(radius, norm=norm))
    return found


def _grid(radius: Number, whole: float) -> list[Number]:
    """Return the radii at which PGD is compared, in [0, 1] pixel units: multiples of ``radius``
    below ``whole``."""
    return [Number.of(radius.value * times) for times in MULTIPLES if radius.value * times < whole]


def _within(eps: Number) -> str:
    """Return the name that PGD with radius ``eps`` has among the attacks."""
    return f"{PGD} within {eps}"


@attrs.frozen(kw_only=True)
class _Properties:
    """Holds what a model's logits and gradients show without an attack.

    Attributes:
        checks: the checks of them.
        classes: number of logits.
        is_random: whether the model draws random numbers.
    """

    checks: tuple[Check, ...]
    classes: int
    is_random: bool

    def left_out(self) -> list[str]:
        """Return what an audit of such a model leaves out and why, one sentence each."""
        found = []
        if self.classes < 3:
            found.append(f"the DLR loss needs three classes or more, and there are {self.classes}")
        if self.is_random:
            found.append(
                "restarts, square and the pass of single images, because the model draws random "
                f"numbers: accuracies are those of the majority of {DRAWS} draws, and gradients "
                f"averages over {EOT}; of draws that an attack does not know the audit says nothing"
            )
        return found


def _check_model(
    model: nn.Module,
    data: DataSet,
    split: SplitLike,
    batch_size: int,
    radius: float,
    norm: Norm,
    seed: int,
) -> _Properties:
    """Return the checks that use only the model's logits and gradients, on the unperturbed images
    and within a small part of the radius around them."""
    victim = ModelVictim(model)
    logits, again = [], []
    largest: dict[str, list[Tensor]] = {}
    wrong: dict[str, list[Tensor]] = {}
    of_pixel = pixel_radius(radius, norm, math.prod(data.image_shape))
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
            for kind, wrong_N in wrong_gradients(
                victim, x, batch.labels, of_pixel, seed=seed
            ).items():
                wrong.setdefault(kind, []).append(wrong_N)
        first = data.images(split[slice(MAX_IMAGES)].load().pixels)
        with torch.no_grad():
            alone = torch.cat([victim.logits(image[None]) for image in first])
    logits_NK, again_NK = torch.cat(logits), torch.cat(again)
    is_random = differ(logits_NK, again_NK)
    checks = [
        logits_not_probabilities(logits_NK),
        nonzero_gradients({name: torch.cat(sizes) for name, sizes in largest.items()}),
        gradient_is_derivative({kind: torch.cat(masks) for kind, masks in wrong.items()}),
    ]
    if not is_random:
        checks.insert(0, deterministic_forward(logits_NK, again_NK, alone))
    return _Properties(checks=tuple(checks), classes=logits_NK.shape[1], is_random=is_random)


def _largest_entry(victim: ModelVictim, x_NCHW: Tensor, y_N: Tensor, loss: str) -> Tensor:
    """Return the l-inf norm of the gradient of a loss with respect to each image, (N,)."""
    gradient, _, _ = victim.gradient(x_NCHW, y_N, ATTACK_LOSSES[loss])
    return gradient.abs().amax(dim=(1, 2, 3))


def _check_attacks(
    robust: Mapping[str, Tensor], radius: Number, norm: Norm, data: DataSet
) -> list[Check]:
    """Return the audit's checks for gradient masking, which compare the images that stay robust
    under each attack, from one mask (N,) per attack."""
    pgd_N = _robust_to_all(robust, ALL_PGD)
    white_box_N = _robust_to_all(robust, WHITE_BOX)
    whole = _unbounded(norm, data)
    grid = {"0": robust[CLEAN]}
    grid |= {str(eps): robust[_within(eps)] for eps in _grid(radius, whole)}
    grid[str(Number.of(whole))] = robust[UNBOUNDED]
    plateaus = {
        "more steps plateau": (PGD, PGD_LONGER),
        "restarts plateau": (PGD, PGD_RESTARTED, PGD_RESTARTED_MORE),
        "more draws plateau": (PGD, PGD_MORE_DRAWS),
    }
    checks = [
        iterative_beats_one_step(robust[ONE_STEP], robust[PGD]),
        monotone_in_eps(grid),
        unbounded_reaches_zero(robust[UNBOUNDED], whole),
        *(
            plateau(name, {attack: robust[attack] for attack in attacks})
            for name, attacks in plateaus.items()
            if robust.keys() >= set(attacks)
        ),
    ]
    if ADAPTIVE in robust:
        checks.append(adaptive_keeps_up(robust[ADAPTIVE], pgd_N))
    if SQUARE in robust:
        checks.append(gradient_free_does_not_win(robust[SQUARE], white_box_N))
    checks.append(smooth_backward_does_not_win(robust[SMOOTH], white_box_N))
    if TRANSFER in robust:
        checks.append(transfer_does_not_win(robust[TRANSFER], white_box_N))
    return checks


def _robust_to_all(robust: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    """Return the share of draws (N,) that are robust to the attack that fools most of them."""
    return torch.stack([robust[name] for name in names if name in robust]).amin(0)
