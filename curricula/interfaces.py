"""The interfaces of perturbations, victims, schedules and objectives.

Shape suffixes: N images, C channels, H x W pixels, K classes, P parameters, G grid points. Images
are float32 in [0, 1], NCHW; labels are int64 (N,). A strength is a float in [0, 1], or a float32
tensor (N,) with one strength for each image.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

import attrs
import torch
from torch import Tensor, nn

from curricula.errors import shown
from curricula.runtime.values import check_whole

PerturbationKind = Literal["spatial", "intensity", "pixel"]
Norm = Literal["linf", "l2", "l1"]
Interpolation = Literal["bilinear", "nearest"]
Padding = Literal["zeros", "border", "reflection"]
Strength: TypeAlias = float | Tensor

AttackLoss: TypeAlias = Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor]
"""(logits_NK, y_N, reference) -> loss_N, where reference() returns the reference logits_NK."""


def strength_per_image(strength: Strength, like: Tensor) -> Strength:
    """Return a strength as a float or as a tensor (N, 1, ..., 1), which broadcasts over a tensor of
    N rows.

    Args:
        strength: one for all images, or (N,).
        like: any tensor of N rows, such as images or drawn parameters.

    Returns:
        A float unchanged; a tensor as (N, 1, ..., 1), with the device, the dtype and the number of
        dimensions of ``like``.

    Example:
        >>> strength_per_image(0.5, torch.zeros(2, 3, 8, 8))
        0.5
        >>> strength_per_image(torch.tensor([0.0, 1.0]), torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 1, 1, 1])
    """
    if not isinstance(strength, Tensor):
        return strength
    return strength.to(like).reshape(-1, *(1,) * (like.ndim - 1))


@attrs.frozen(kw_only=True)
class NormBound:
    """A bound on the norm of each image's change: it is at most ``strength * radius``.

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        radius: bound at strength 1, in [0, 1] pixel units.
    """

    norm: Norm
    radius: float


class Perturbation(Protocol):
    """A family of image changes, one for each strength in [0, 1]; strength 0 changes no pixel.

    Attributes:
        kind: ``spatial`` and ``intensity`` changes come before ``pixel`` attacks in a chain.
        unit: unit of the budget; data sets state their standard budgets by unit.
        budget: largest change, reached at strength 1, in ``unit``.
        norm_bound: the bound that every output keeps, or None.
        channels: supported numbers of channels, or None for any.
        training_only: whether it is excluded from evaluations, because it may break the rules of
            a threat.

    A perturbation that queries the victim should also declare ``passes``, its number of passes per
    image at strength 1 if no image is fooled: see `curricula.expressions.nodes.Leaf.max_passes`.
    """

    @property
    def kind(self) -> PerturbationKind: ...
    @property
    def unit(self) -> str: ...
    @property
    def budget(self) -> float: ...
    @property
    def norm_bound(self) -> NormBound | None: ...
    @property
    def channels(self) -> frozenset[int] | None: ...
    @property
    def training_only(self) -> bool: ...

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strength: Strength,
        victim: "Victim",
        generator: torch.Generator,
    ) -> Tensor:
        """Return the perturbed images: a new, detached tensor in [0, 1], with the shape and dtype
        of the input.

        Args:
            x_NCHW: images, never written to.
            y_N: labels.
            strength: one for all images, or (N,).
            victim: the model.
            generator: source of all randomness, on the images' device.
        """
        ...


PERTURBATION_KINDS: tuple[PerturbationKind, ...] = get_args(PerturbationKind)
DECLARED_ATTRIBUTES = ("kind", "unit", "budget", "norm_bound", "channels", "training_only")


def declaration_problem(perturbation: object) -> str | None:
    """Return a sentence on the declared attributes of a perturbation that are missing or wrong, or
    None if all are right.

    Example:
        >>> declaration_problem(object())
        'it declares no kind, unit, budget, norm_bound, channels, training_only'
    """
    missing = [name for name in DECLARED_ATTRIBUTES if not hasattr(perturbation, name)]
    if missing:
        return f"it declares no {', '.join(missing)}"
    kind = perturbation.kind  # type: ignore[attr-defined]
    if kind not in PERTURBATION_KINDS:
        return f"its kind is {kind!r}; it must be {' or '.join(PERTURBATION_KINDS)}"
    passes = getattr(perturbation, "passes", 0)
    if not isinstance(passes, int) or passes < 0:
        return f"its passes are {shown(passes)}; they must be a whole number, 0 or more"
    return None


@runtime_checkable
class ParametricPerturbation(Perturbation, Protocol):
    """A perturbation that is a function of the image and of P parameters per image, so that it can
    be searched: `grid` covers the range that `sample` draws from, and `apply` changes the
    images."""

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Return random parameters (n, P), one row for each image."""
        ...

    def grid(self, strength: Strength, points: int) -> Tensor:
        """Return G parameter rows on a regular grid over the range that `sample` draws from.

        Args:
            strength: one for all images, or (N,).
            points: number of values for each parameter; an odd number includes the identity. A
                discrete parameter takes its own values instead.

        Returns:
            (G, P) for a float, (G, N, P) for strengths (N,).
        """
        ...

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """Return the images NCHW in [0, 1], each changed by its row of parameters."""
        ...


@runtime_checkable
class AffinePerturbation(ParametricPerturbation, Protocol):
    """A spatial perturbation that applies an affine map to each image. Neighbouring affine
    perturbations in a chain are fused into one interpolation."""

    @property
    def interpolation(self) -> Interpolation: ...
    @property
    def padding(self) -> Padding: ...

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """Return the affine matrices theta_N23, which map each output pixel to the input point that
        it shows.

        Both are in pixels from the image's centre, x to the right and y down.
        """
        ...


class Victim(Protocol):
    """The model under attack, as perturbations see it: logits, gradients, and which images to keep
    attacking.

    Its parameters are frozen, and it is in eval mode. Nothing that a perturbation does through it
    changes the model, its gradients or its training flags.
    """

    def logits(self, x_NCHW: Tensor) -> Tensor:
        """Return the model's logits_NK in float32, differentiable in x."""
        ...

    def gradient(
        self, x_NCHW: Tensor, y_N: Tensor, loss: AttackLoss | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (grad_NCHW, loss_N, logits_NK), all detached, where grad is the gradient of the
        summed loss with respect to x.

        Args:
            x_NCHW: images.
            y_N: labels.
            loss: None means the victim's own loss: the objective's in training, cross-entropy in a
                threat.
        """
        ...

    def with_reference(self, x_NCHW: Tensor) -> "Victim":
        """Return a victim that also stores the logits at x as reference logits, which the KL loss
        of TRADES needs."""
        ...

    def subset(self, index: Tensor) -> "Victim":
        """Return a victim for the images x[index] only, with the reference logits of these
        images."""
        ...

    def active(self, logits_NK: Tensor, y_N: Tensor) -> Tensor:
        """Return the mask (N,) of images to keep attacking.

        In training these are all images; in an evaluation, those still classified correctly.

        Args:
            logits_NK: the model's logits on the current adversarial images.
            y_N: labels.
        """
        ...

    def as_module(self) -> nn.Module:
        """Return a module with frozen weights that maps images to logits, for attacks that need an
        `nn.Module`."""
        ...


@attrs.frozen(kw_only=True)
class Progress:
    """A point in training: ``step`` of ``total_steps`` updates, in ``epoch`` of ``total_epochs``,
    all counted from 0; at its end a training is at step ``total_steps``.

    Raises:
        UserError: a number below 0 or above its total, or a total below 1.

    Example:
        >>> Progress(step=5, total_steps=20, epoch=1, total_epochs=4).fraction
        0.25
    """

    step: int
    total_steps: int
    epoch: int
    total_epochs: int

    def __attrs_post_init__(self) -> None:
        for count, total in (("step", "total_steps"), ("epoch", "total_epochs")):
            check_whole(total, getattr(self, total), 1)
            check_whole(count, getattr(self, count), 0)
            check_whole(f"{count} (of {total})", getattr(self, count), 0, getattr(self, total))

    @property
    def fraction(self) -> float:
        """Share of all updates that are finished, in [0, 1]."""
        return self.step / self.total_steps


ScheduleState: TypeAlias = Mapping[str, Tensor]
"""The state of an adaptive schedule: named tensors, which the trainer checkpoints."""


class Schedule(Protocol):
    """A pure function from training progress and a state to a strength in [0, 1]."""

    def __call__(self, progress: Progress, state: ScheduleState) -> Strength:
        """Return the strength in [0, 1]: a number, or a tensor with one value per training
        image."""
        ...


@attrs.frozen(kw_only=True)
class Feedback:
    """Which images of a batch the model classified correctly, when and at which strength, for one
    schedule; all tensors are (N,).

    In a union each image takes one branch; the schedules of the other branches receive its feedback
    too.

    Attributes:
        indices: each image's index in the training set.
        correct: whether the model classified the perturbed image correctly.
        strength: the image's strength at this link.
        progress: the progress of training before the batch's update.
        chance: accuracy of the best constant answer: the most frequent class's share of the
            training images, above 0 to 1.
    """

    indices: Tensor
    correct: Tensor
    strength: Tensor
    progress: Progress
    chance: float


@runtime_checkable
class AdaptiveSchedule(Protocol):
    """A schedule whose strength depends on how well the model classifies perturbed images. The
    trainer stores its state."""

    def __call__(self, progress: Progress, state: ScheduleState) -> Strength: ...

    def start(self, num_train: int) -> ScheduleState:
        """Return the schedule's state before training on ``num_train`` images."""
        ...

    def after_batch(self, state: ScheduleState, feedback: Feedback) -> ScheduleState:
        """Return the schedule's state after a batch, without changing ``state``."""
        ...

    def after_epoch(self, state: ScheduleState, validation: Mapping[str, float]) -> ScheduleState:
        """Return the schedule's state after an epoch, given the validation accuracy in [0, 1] under
        each threat."""
        ...


@attrs.frozen(kw_only=True)
class Views:
    """The clean, transformed and perturbed images of a batch: three tensors NCHW in [0, 1].

    Attributes:
        clean: the images before all links.
        transformed: the images after the spatial and intensity links.
        perturbed: the images after all links.
    """

    clean: Tensor
    transformed: Tensor
    perturbed: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Views":
        """Return new views, with ``function`` applied to the clean, the transformed and the
        perturbed images."""
        return Views(
            clean=function(self.clean),
            transformed=function(self.transformed),
            perturbed=function(self.perturbed),
        )

    def combined(self, other: "Views", function: Callable[[Tensor, Tensor], Tensor]) -> "Views":
        """Return new views, with ``function`` applied to the clean, the transformed and the
        perturbed images of both views."""
        return Views(
            clean=function(self.clean, other.clean),
            transformed=function(self.transformed, other.transformed),
            perturbed=function(self.perturbed, other.perturbed),
        )


@attrs.frozen(kw_only=True)
class TrainingLoss:
    """The scalar loss that an objective computed on a batch, with the logits at its perturbed view.

    Attributes:
        value: the scalar loss to minimise.
        logits: detached logits_NK at the perturbed view, from which adaptive schedules and the
            running accuracy are updated.
    """

    value: Tensor
    logits: Tensor


class Objective(Protocol):
    """A training loss, computed from the clean, transformed and perturbed images of a batch."""

    @property
    def attack_loss(self) -> str | AttackLoss:
        """The per-example loss that the inner attack ascends by default: a name (``ce``, ``kl``,
        ``dlr``) or a function."""
        ...

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss:
        """Return the scalar loss of a batch, to be minimised, with the logits at its perturbed
        images."""
        ...


@runtime_checkable
class HasPlainEquivalent(Protocol):
    """A model that can return an equivalent network of plain torch layers. The victim attacks that
    network, and requests it again after a change of weights."""

    def plain_equivalent(self) -> nn.Module:
        """Return a network of plain torch layers, in eval mode, with the same logits as the model
        has at its current weights."""
        ...
