"""The model as perturbations see it: logits and gradients, and no access to its weights."""

import copy
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from curricula.errors import UserError, shown
from curricula.interfaces import AttackLoss
from curricula.losses import ATTACK_LOSSES, uneven_sum
from curricula.runtime.modes import as_ordinary, outside_inference_mode
from curricula.runtime.precision import Precision
from curricula.runtime.values import check_choice
from curricula.victim.frozen import FrozenModel

# What torch says of a result that does not depend on the images by operations with gradients.
NO_GRADIENT = ("does not require grad", "not have been used")


class NoGradientError(UserError):
    """No gradient reaches a model's images."""


class ModelVictim:
    """A network as perturbations see it: logits and gradients, and no access to its weights.

    Args:
        model: any module from images in [0, 1] to logits, or to what holds them as ``logits``.
        loss: the loss that `gradient` differentiates if a perturbation gives none: a key of
            `curricula.losses.ATTACK_LOSSES`, or a function.
        precision: precision of the network's arithmetic, ``float32`` or ``bf16``; images, losses
            and gradients are float32.
        early_stop: stop attacking an image once it is misclassified, as evaluations do; training
            keeps attacking it.
        fast, compiled, replayed: as for `curricula.victim.frozen.FrozenModel`.
        check_finite: refuse logits that are not finite on the first images; a caller that looks at
            all logits itself can leave it out.

    Raises:
        UserError: a model that is not a module; an unknown loss or precision. In the first pass:
            the model's output is not finite floating logits (N, K), or the model cannot be run in
            eval mode without changing it.

    Example:
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        >>> x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
        >>> gradient, loss, logits = victim.gradient(x, y)
        >>> gradient.shape, loss.shape, logits.shape
        (torch.Size([5, 1, 2, 2]), torch.Size([5]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: str | AttackLoss = "ce",
        precision: Precision = "float32",
        early_stop: bool = False,
        fast: bool = True,
        compiled: int | None = None,
        replayed: int | None = None,
        check_finite: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UserError(f"model must be a torch.nn.Module, not {shown(model)}")
        if not callable(loss):
            check_choice("attack loss", loss, ATTACK_LOSSES)
        check_choice("precision", precision, get_args(Precision))
        self._frozen = FrozenModel(
            model,
            precision,
            fast=fast,
            compiled=compiled,
            replayed=replayed,
            check_finite=check_finite,
        )
        self._loss = ATTACK_LOSSES[loss] if isinstance(loss, str) else loss
        self._early_stop = early_stop
        self._reference: Callable[[], Tensor] = _no_reference

    def _with(self, reference: Callable[[], Tensor]) -> "ModelVictim":
        other = copy.copy(self)
        other._reference = reference
        return other

    def attacking_all(self) -> "ModelVictim":
        """Return this victim without ``early_stop``: a draw of a random network that misclassifies
        an image says little about the next one."""
        other = copy.copy(self)
        other._early_stop = False
        return other

    def logits(self, x_NCHW: Tensor) -> Tensor:
        """Return logits_NK in float32, differentiable with respect to the images."""
        return self._forward(x_NCHW)

    def _forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor = self._frozen(x_NCHW)
        return logits

    def gradient(
        self, x_NCHW: Tensor, y_N: Tensor, loss: AttackLoss | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each image's gradient of the loss, its loss and its logits, (grad_NCHW, loss_N,
        logits_NK), detached.

        Raises:
            NoGradientError: no gradient reaches the images.
            UserError: the loss is not one number for each image, with a gradient in the logits.
        """
        with outside_inference_mode(), torch.enable_grad(), self._frozen.gradient_pass():
            x = as_ordinary(x_NCHW.detach()).requires_grad_()
            logits = self._forward(x)
            replayed = self._frozen.was_replayed  # the loss may run another pass
            loss_N = (loss or self._loss)(logits, as_ordinary(y_N), self._reference)
            _check_loss(loss_N, logits)
            try:
                (gradient,) = torch.autograd.grad(loss_N.sum(), x)
            except RuntimeError as error:
                if not any(text in str(error) for text in NO_GRADIENT):
                    raise
                raise NoGradientError(
                    "the model has no gradient in its images, because its forward detaches them or "
                    "computes without gradients: only threats without gradients, such as square, "
                    "can measure it"
                ) from error
            if replayed:
                gradient = gradient.clone()
        return gradient, loss_N.detach(), logits.detach()

    @property
    def gradient_passes(self) -> int:
        """Number of passes so far on images that require a gradient."""
        return self._frozen.gradient_passes

    def has_gradient(self, x_NCHW: Tensor) -> bool:
        """Return whether a gradient of the logits other than zero reaches any of the images.

        The losses of attacks may have none where the network is sure of its answers.
        """
        try:
            gradient, _, _ = self.gradient(x_NCHW, torch.zeros(len(x_NCHW)), uneven_sum)
        except NoGradientError:
            return False
        return bool(gradient.any())

    def with_reference(self, x_NCHW: Tensor) -> "ModelVictim":
        """Return this victim with the network's logits on the given images as its reference,
        computed when first needed."""
        self._frozen.expect_changes()  # a perturbation starts here
        x = x_NCHW.detach()
        computed: list[Tensor] = []

        def reference() -> Tensor:
            if not computed:
                with torch.no_grad():
                    computed.append(self._forward(x))
            return computed[0]

        return self._with(reference)

    def subset(self, index: Tensor) -> "ModelVictim":
        """Return this victim with the reference logits of the images at ``index`` only."""
        reference = self._reference
        return self._with(lambda: reference()[index])

    def active(self, logits_NK: Tensor, y_N: Tensor) -> Tensor:
        """Return the mask (N,) of images to keep attacking: all, or with ``early_stop`` those still
        classified correctly."""
        return logits_NK.argmax(1) == y_N if self._early_stop else torch.ones_like(y_N).bool()

    def as_module(self) -> nn.Module:
        """Return the frozen copy as a module from images to logits_NK, always in eval mode."""
        return self._frozen


def _check_loss(loss_N: Any, logits_NK: Tensor) -> None:
    """Check that a loss is one number for each image, with a gradient in the logits.

    Raises:
        UserError: it is not.
    """
    n = len(logits_NK)
    if not isinstance(loss_N, Tensor) or loss_N.shape != (n,):
        shape = getattr(loss_N, "shape", None)
        found = shown(loss_N) if shape is None else f"one of shape {tuple(shape)}"
        raise UserError(
            f"the attack loss must be a tensor of shape ({n},), one number for each image, not "
            f"{found}"
        )
    if logits_NK.requires_grad and not loss_N.requires_grad:
        raise UserError(
            "the attack loss has no gradient in the logits: compute it from them by operations of "
            "torch, without detach"
        )


def _no_reference() -> Tensor:
    raise ValueError(
        "this loss compares with reference logits: call victim.with_reference(x).gradient, not "
        "victim.gradient"
    )
