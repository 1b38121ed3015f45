"""The words of curricula as types: what a perturbation, a victim, a schedule and an objective are.

Legend of shapes: N images, C channels, H x W pixels, K classes. Images are float32 in [0, 1],
NCHW; labels are int64 (N,). A strength is a float in [0, 1], or a float32 tensor (N,) of them.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import attrs
import torch
from torch import Tensor, nn

PerturbationKind = Literal["spatial", "intensity", "pixel"]
Norm = Literal["linf", "l2", "l1"]
Interpolation = Literal["bilinear", "nearest"]
Padding = Literal["zeros", "border", "reflection"]
Strength: TypeAlias = float | Tensor

AttackLoss: TypeAlias = Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor]
"""(logits_NK, y_N, reference) -> loss_N, where reference() gives the logits_NK at the anchor."""


def strength_per_image(strength: Strength, like: Tensor) -> Strength:
    """Return a strength that broadcasts over tensors with one row per image.

    Args:
        strength: one for all images, or (N,).
        like: any tensor of N rows, such as images or drawn parameters.

    Returns:
        A float unchanged; a tensor as (N, 1, ..., 1), with the device, the dtype and the number of
        dimensions of ``like``.

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
    """What a perturbation promises of each image: its change, in ``norm``, is at most
    ``strength * radius`` (in [0, 1] pixel units)."""

    norm: Norm
    radius: float


DECLARED = ("kind", "unit", "budget", "norm_bound", "channels", "training_only")
"""The attributes that every perturbation declares, beside being callable."""


class Perturbation(Protocol):
    """A family of input changes, indexed by strength; strength 0 is the exact identity.

    Attributes:
        kind: ``spatial`` and ``intensity`` changes come before ``pixel`` attacks in a chain.
        unit: of the budget; data sets state their standard budgets by unit.
        budget: what strength 1 means, in ``unit``.
        norm_bound: a norm and radius that every output keeps, or None.
        channels: the channel counts it works on, or None for any.
        training_only: it may break what a threat must keep, so it cannot evaluate.
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
        """The perturbed images: new, detached, of the input's shape, dtype and device, in [0, 1].

        All randomness comes from ``generator``, which is on the images' device; the input stays
        untouched.
        """
        ...


@runtime_checkable
class ParametricPerturbation(Perturbation, Protocol):
    """A perturbation that is a function of the image and of a few numbers, P for each image, so
    that it can be searched: `grid` enumerates what `sample` draws from, `apply` carries it out."""

    def sample(self, n: int, strength: Strength, generator: torch.Generator) -> Tensor:
        """Random parameters (n, P), one row an image."""
        ...

    def grid(self, strength: Strength, points: int) -> Tensor:
        """A regular grid over the same range, ``points`` values a parameter (those that can only
        take a few values take these): (G, P) for a float, (G, N, P) for one strength an image.
        An odd number of points has the identity among them."""
        ...

    def apply(self, x_NCHW: Tensor, parameters_NP: Tensor) -> Tensor:
        """The images changed by given parameters, one row each, in [0, 1]."""
        ...


@runtime_checkable
class AffinePerturbation(ParametricPerturbation, Protocol):
    """A spatial perturbation that is an affine map of the plane, so that neighbours in a chain
    fuse into one interpolation."""

    @property
    def interpolation(self) -> Interpolation: ...
    @property
    def padding(self) -> Padding: ...

    def matrix(self, parameters_NP: Tensor) -> Tensor:
        """theta_N23: from a pixel of the output to the place in the input that it shows, both in
        pixels from the image's centre, x to the right and y down."""
        ...


class Victim(Protocol):
    """The model as a perturbation sees it: at rest, and behind this door alone.

    Its parameters are frozen, batch norm and dropout are in evaluation mode, and nothing that a
    perturbation does through it changes the model, its gradients or its training flags.
    """

    def logits(self, x_NCHW: Tensor) -> Tensor:
        """logits_NK in float32, differentiable in x."""
        ...

    def gradient(
        self, x_NCHW: Tensor, y_N: Tensor, loss: AttackLoss | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(grad_NCHW, loss_N, logits_NK), detached: the gradient in x of the sum of the losses.

        ``loss`` None stands for the victim's own: the objective's in training, cross-entropy in
        a threat.
        """
        ...

    def with_reference(self, x_NCHW: Tensor) -> "Victim":
        """The same victim for losses that compare with the logits at x (TRADES' KL does)."""
        ...

    def subset(self, index: Tensor) -> "Victim":
        """The same victim for x[index] of the images whose logits are its reference."""
        ...

    def active(self, logits_NK: Tensor, y_N: Tensor) -> Tensor:
        """bool (N,), of what the model makes of an attack's results: which images are worth
        attacking on. In training all are; in a threat those that it still gets right."""
        ...

    def as_module(self) -> nn.Module:
        """A frozen module from images to logits, for attacks that want one."""
        ...


@attrs.frozen(kw_only=True)
class Progress:
    """How far training is: ``step`` of ``total_steps`` updates, in ``epoch`` of ``total_epochs``,
    all counted from 0."""

    step: int
    total_steps: int
    epoch: int
    total_epochs: int

    @property
    def fraction(self) -> float:
        """In [0, 1)."""
        return self.step / self.total_steps


ScheduleState: TypeAlias = Mapping[str, Tensor]
"""The state of a schedule that listens: named tensors, which the trainer checkpoints."""


class Schedule(Protocol):
    """From training progress to strength; a pure function of its two arguments."""

    def __call__(self, progress: Progress, state: ScheduleState) -> Strength:
        """A strength in [0, 1], or one value for each training image (not of the batch)."""
        ...


@attrs.frozen(kw_only=True)
class Feedback:
    """What a batch told: of each image its index in the training set, whether the model was
    right under the present perturbation, and its strength at this link; all (N,).

    In a union an image took one branch: the schedules of the others hear of it too."""

    indices: Tensor
    correct: Tensor
    strength: Tensor


@runtime_checkable
class AdaptiveSchedule(Protocol):
    """A schedule whose state is moved by feedback. The trainer owns the state."""

    def __call__(self, progress: Progress, state: ScheduleState) -> Strength: ...

    def start(self, num_train: int) -> ScheduleState:
        """The state before training on ``num_train`` images."""
        ...

    def after_batch(self, state: ScheduleState, feedback: Feedback) -> ScheduleState:
        """The state after a batch; the old one is not changed."""
        ...

    def after_epoch(self, state: ScheduleState, validation: Mapping[str, float]) -> ScheduleState:
        """The state after an epoch, given the validation accuracies in [0, 1]."""
        ...


@attrs.frozen(kw_only=True)
class Views:
    """The three views that a curriculum gives of a batch, all NCHW in [0, 1]: ``clean``;
    ``transformed``, after the spatial and colour links; ``perturbed``, after all links."""

    clean: Tensor
    transformed: Tensor
    perturbed: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Views":
        """The same function of each view."""
        return Views(
            clean=function(self.clean),
            transformed=function(self.transformed),
            perturbed=function(self.perturbed),
        )

    def combined(self, other: "Views", function: Callable[[Tensor, Tensor], Tensor]) -> "Views":
        """The same function of each view and its namesake."""
        return Views(
            clean=function(self.clean, other.clean),
            transformed=function(self.transformed, other.transformed),
            perturbed=function(self.perturbed, other.perturbed),
        )


@attrs.frozen(kw_only=True)
class TrainingLoss:
    """What an objective computed: the scalar to descend, and the logits_NK at the perturbed view
    (what schedules that listen and the running accuracy are told of)."""

    value: Tensor
    logits: Tensor


class Objective(Protocol):
    """The training loss on the views of a batch."""

    @property
    def attack_loss(self) -> str:
        """The name of the per-example loss that its inner attack ascends by default."""
        ...

    def __call__(self, model: nn.Module, views: Views, y_N: Tensor) -> TrainingLoss: ...


@runtime_checkable
class HasPlainEquivalent(Protocol):
    """A model that can offer a plain-torch equivalent of itself at its present weights, in
    evaluation mode; the victim attacks that one, and asks again after a weight change."""

    def plain_equivalent(self) -> nn.Module: ...
