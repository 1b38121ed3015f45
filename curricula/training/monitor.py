"""Watch a training for lost robustness, divergence, and numbers that are not finite.

The thresholds were chosen on a few runs on digits (seeds 3 and 100) and confirmed on the runs of
``tests/tools/monitor_runs.py``, which have other seeds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from curricula.curriculum import Curriculum, Threat
from curricula.data.dataset import in_proportion
from curricula.evaluation.threats import pgd_attack, pixel_budget
from curricula.expressions.binding import bind
from curricula.interfaces import Strength, Victim
from curricula.models.kept_state import state_tensors
from curricula.plugins import registry
from curricula.runtime.processes import largest
from curricula.training.config import EVALUATION_SEED
from curricula.training.metrics import Finding
from curricula.training.plan import Plan
from curricula.training.step import TrainingState, Update
from curricula.victim.frozen import FrozenModel
from curricula.victim.model_victim import ModelVictim

ACUTE: tuple[Finding, ...] = ("catastrophic overfitting", "divergence", "no gradient")
"""The findings that `on_collapse` acts on."""

STEPS = 10  # gradient steps of the stronger attack
MIN_IMAGES, MAX_IMAGES = 16, 128  # images of a probe
MAX_SHARE = 0.015  # passes of all probes, as a share of the training's
FULL = 0.999  # strength from which validation, at full strength, stands for a probe

MIN_TRAIN_ACCURACY = 0.4  # on the training attack, from which a collapse is recognised
MAX_RATIO = 0.3  # accuracy under the stronger attack to that under the training attack
MAX_LOSS = 100.0  # mean training loss, in multiples of the loss of chance
WINDOW = 3  # epochs whose joint validation accuracies are averaged
MIN_FALL = 0.05  # of the joint validation accuracy from its best

EXPLANATIONS: Mapping[Finding, str] = {
    "catastrophic overfitting": "the network withstands the training attack, but not PGD of the "
    "same size: use more steps, a random start or a smaller budget",
    "robust overfitting": "the joint validation accuracy is below its best while the "
    "training accuracy rises: train for fewer epochs, or use --average or --awp",
    "divergence": "the loss is far above that of chance: lower lr (--lr)",
    "no gradient": "all gradients are zero, so nothing is learned: lower lr (--lr), or check the "
    "model and the objective",
}


@attrs.frozen(kw_only=True)
class Epoch:
    """Accuracies, loss and flags of an epoch, from which findings are drawn.

    Attributes:
        train_accuracy: accuracy on the training attack during the epoch, in [0, 1].
        loss: mean training loss.
        joint: validation accuracy under the joint threat at full strength, in [0, 1].
        strong: accuracy under PGD at the strengths of the epoch's end, in [0, 1]; None if it was
            not measured.
        full: whether all perturbations had full strength at the epoch's end.
        zero_gradient: whether all gradients of the last update were zero.
    """

    train_accuracy: float
    loss: float
    joint: float
    strong: float | None
    full: bool
    zero_gradient: bool = False


def findings(epochs: Sequence[Epoch], *, num_classes: int, validation: int) -> list[Finding]:
    """Return what is wrong with the last epoch, such as ``divergence``; an empty list if nothing
    is.

    Args:
        epochs: all epochs of the training so far, 1 or more.
        num_classes: number of classes.
        validation: number of validation images.

    Example:
        >>> good = Epoch(train_accuracy=0.8, loss=0.6, joint=0.7, strong=0.7, full=True)
        >>> collapsed = attrs.evolve(good, train_accuracy=0.95, joint=0.01, strong=0.01)
        >>> findings([good], num_classes=10, validation=1000)
        []
        >>> findings([good, collapsed], num_classes=10, validation=1000)
        ['catastrophic overfitting']
    """
    last = epochs[-1]
    found: list[Finding] = []
    if last.strong is not None and has_collapsed(last.train_accuracy, last.strong, num_classes):
        found.append("catastrophic overfitting")
    if last.loss > MAX_LOSS * math.log(num_classes):
        found.append("divergence")
    if last.zero_gradient and last.train_accuracy < 0.99:  # a network that fits all may have none
        found.append("no gradient")
    if not found and _has_overfitted(epochs, validation):
        found.append("robust overfitting")
    return found


def has_collapsed(train_accuracy: float, strong: float, num_classes: int) -> bool:
    """Return whether training accuracy is high, but accuracy under a stronger attack only a small
    share of it.

    Args:
        train_accuracy: accuracy on the training attack, in [0, 1].
        strong: accuracy under the stronger attack, in [0, 1].
        num_classes: number of classes.
    """
    learned = train_accuracy >= max(MIN_TRAIN_ACCURACY, 2 / num_classes)
    return learned and strong <= MAX_RATIO * train_accuracy


def _has_overfitted(epochs: Sequence[Epoch], validation: int) -> bool:
    """Return whether joint validation accuracy is below its best by more than noise while training
    accuracy did not fall; only epochs at full strength count."""
    full = [epoch for epoch in epochs if epoch.full]
    if len(full) < 2 * WINDOW:
        return False
    windows = [full[begin : begin + WINDOW] for begin in range(len(full) - WINDOW + 1)]
    joint = [sum(epoch.joint for epoch in window) / WINDOW for window in windows]
    train = [sum(epoch.train_accuracy for epoch in window) / WINDOW for window in windows]
    best = max(range(len(joint)), key=joint.__getitem__)
    noise = 3 * math.sqrt(joint[best] * (1 - joint[best]) / validation)
    fall = joint[best] - joint[-1]
    return fall > max(MIN_FALL, noise) and train[-1] >= train[best]


def problem(state: TrainingState) -> str | None:
    """Return what is NaN or infinite in a state: ``loss`` or ``weights``; None if all is finite.

    A loss, gradient or logit that is not finite makes the sum of the losses, or the weights after
    the update, not finite either. Waits for the device.
    """
    if not has_finite_loss(state):
        return "loss"
    tensors = [
        tensor for tensor in state_tensors(state.model).values() if tensor.is_floating_point()
    ]
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors])
    return None if bool(finite.all()) else "weights"


def has_finite_loss(state: TrainingState) -> bool:
    """Return whether all losses of the epoch so far are finite. Waits for the device."""
    return bool(torch.isfinite(state.sums.loss))


@attrs.frozen(kw_only=True, eq=False)
class Trace:
    """Strengths, loss and sums of pixels of an update, by which the cause of a NaN is found later
    without its images.

    Attributes:
        strengths: strength of each leaf, by label.
        loss: the training loss, a scalar.
        transformed, perturbed: sums of all pixels of these images, for each part of the batch; NaN
            if a pixel is.
    """

    strengths: Mapping[str, Strength]
    loss: Tensor
    transformed: Sequence[Tensor]
    perturbed: Sequence[Tensor]

    @classmethod
    def of(cls, update: Update) -> "Trace":
        """Return the trace of an update. Does not wait for the device."""
        return cls(
            strengths=update.strengths,
            loss=update.loss,
            transformed=[views.transformed.sum() for views in update.parts],
            perturbed=[views.perturbed.sum() for views in update.parts],
        )

    @property
    def spoilt(self) -> dict[str, bool]:
        """Return whether the strengths, transformed images, perturbed images and loss hold a value
        that is not finite. Waits for the device."""
        parts: dict[str, Iterable[Strength]] = {
            "strengths": self.strengths.values(),
            "transformed": self.transformed,
            "perturbed": self.perturbed,
            "loss": [self.loss],
        }
        return {
            name: not all(bool(torch.isfinite(torch.as_tensor(part)).all()) for part in values)
            for name, values in parts.items()
        }


def cause(plan: Plan, updates: Iterable[Trace]) -> tuple[str, str] | None:
    """Return what made the first update with a NaN, and the fix: a schedule's strengths, or images
    that a perturbation made in any process; None if it was the network or the objective. Waits for
    the device.

    A network that has diverged makes the gradients of attacks NaN too. Built-in attacks are
    therefore never the cause.

    Args:
        plan: the training.
        updates: the updates since the last that is known to have a finite loss.
    """
    curriculum = plan.curriculum.tree.leaves.values()
    for update in updates:
        here = update.spoilt
        spoilt = dict(zip(here, largest(*here.values()), strict=True))
        if spoilt["strengths"]:
            return nan_strength(plan, update.strengths)
        if spoilt["transformed"]:
            leaves = [*plan.augmentation.tree.leaves.values(), *curriculum]
            names = [leaf.call.name for leaf in leaves if leaf.perturbation.kind != "pixel"]
            made = " or ".join(_third_party(names) or dict.fromkeys(names))
            return f"{made} made an image with NaN", f"check {made}"
        if spoilt["perturbed"]:
            names = [leaf.call.name for leaf in curriculum if leaf.perturbation.kind == "pixel"]
            if made := " or ".join(_third_party(names)):
                return f"{made} made an image with NaN", f"check {made}, or lower lr (--lr)"
        if spoilt["loss"]:
            return None
    return None


def nan_strength(plan: Plan, strengths: Mapping[str, Strength]) -> tuple[str, str] | None:
    """Return what is wrong with strengths that are NaN, by label, and the fix; None if nothing is.
    Waits for the device."""
    for label, strength in strengths.items():
        if bool(torch.as_tensor(strength).isnan().any()):
            call = plan.curriculum.schedule_calls[label]
            return f"the schedule of {label} gave a strength of NaN", f"check {call}"
    return None


def _third_party(names: Iterable[str]) -> list[str]:
    """Return the names of the perturbations that come from plugins, each once."""
    known = registry.current()
    return [
        name for name in dict.fromkeys(names) if not known.find("perturbation", name).is_builtin
    ]


def has_no_gradient(state: TrainingState) -> bool:
    """Return whether all gradients of the last update are zero. Waits for the device."""
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    return bool(gradients) and not any(bool(gradient.any()) for gradient in gradients)


def is_full(strengths: Mapping[str, float]) -> bool:
    """Return whether all perturbations have full strength."""
    return all(strength >= FULL for strength in strengths.values())


class Prober:
    """Measure the accuracy under PGD on a few validation images after an epoch, at the strengths
    that the schedules have reached.

    Args:
        plan: the training.
        attacked: victim of the training's attacks, whose form the probes use once it is chosen.
    """

    def __init__(self, plan: Plan, attacked: Victim) -> None:
        self._plan = plan
        self._attacked = attacked
        self._labels = [
            label
            for label, leaf in plan.curriculum.tree.leaves.items()
            if leaf.perturbation.kind == "pixel"
        ]
        transformed = plan.curriculum.tree.without_attacks()
        self._transformed: Curriculum | None = None
        if transformed is not None:
            self._transformed = attrs.evolve(plan.curriculum, tree=transformed)

    def strong_accuracy(
        self,
        state: TrainingState,
        strengths: Mapping[str, float],
        joint: float,
        train_accuracy: float,
        *,
        known: bool,
    ) -> float | None:
        """Return the accuracy under PGD at the strengths of an epoch's last update, in [0, 1].

        At full strength, that is the joint validation accuracy, which costs nothing more. Below
        it, a few validation images are attacked, as many as the passes so far pay for. Validation
        of averaged weights only raises a suspicion, which is checked at once. None if there is no
        pixel attack, or if too few passes were made since the last probe.

        Args:
            state: the state after an epoch; counts the passes of the probe.
            strengths: mean strength of each leaf, by label.
            joint: the joint validation accuracy of the epoch.
            train_accuracy: accuracy on the training attack during the epoch.
            known: whether the last epoch that was measured had collapsed.
        """
        strength = max((strengths.get(label, 0.0) for label in self._labels), default=0.0)
        if strength == 0.0:
            return None
        full = is_full(strengths)
        if full and state.average is None:
            return joint
        suspected = full and has_collapsed(train_accuracy, joint, self._plan.data.num_classes)
        each = STEPS + 2
        count = int((MAX_SHARE * state.passes - state.probe_passes) / each)
        count = min(count, MAX_IMAGES, len(self._plan.validation))
        fewest = min(MIN_IMAGES, len(self._plan.validation))
        if suspected and not known:
            count = max(count, fewest)
        if count < fewest:
            return None
        state.probe_passes += count * each
        return self._measured(state, strengths, strength, count)

    def _measured(
        self, state: TrainingState, strengths: Mapping[str, float], strength: float, count: int
    ) -> float:
        plan = self._plan
        eps, norm = pixel_budget(plan.curriculum.tree, plan.data.budgets)
        attack = bind(pgd_attack(eps, norm=norm, steps=STEPS), threat=True)
        # Of each class its share, as in the training accuracy that the probe is compared with.
        batch = plan.validation[in_proportion(plan.validation.labels, count)].load()
        generator = torch.Generator(plan.device).manual_seed(EVALUATION_SEED)
        victim = ModelVictim(
            state.model, precision=plan.precision, early_stop=True, check_finite=False
        )
        frozen, attacked = victim.as_module(), self._attacked.as_module()
        if isinstance(frozen, FrozenModel) and isinstance(attacked, FrozenModel) and attacked.form:
            frozen.use_form(attacked.form)
        x: Tensor = plan.data.images(batch.pixels)
        if self._transformed is not None:
            x = self._transformed(
                x, batch.labels, strengths=strengths, victim=victim, generator=generator
            ).perturbed
        threat = Threat(tree=attack, strength=min(strength, 1.0))
        x = threat(x, batch.labels, victim=victim, generator=generator)
        with torch.no_grad():
            correct = victim.logits(x).argmax(1) == batch.labels
        return int(correct.sum()) / count
