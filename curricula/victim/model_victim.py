"""The model as a perturbation sees it: behind one door."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from curricula.interfaces import AttackLoss
from curricula.losses import ATTACK_LOSSES
from curricula.runtime.precision import Precision
from curricula.victim.frozen import FrozenModel


class ModelVictim:
    """The victim of a model: the only door between a perturbation and the network.

    Args:
        model: any module from images in [0, 1] to logits.
        loss: what `gradient` ascends where a perturbation names no loss of its own: a name of
            curricula.losses.ATTACK_LOSSES.
        precision: of the network's arithmetic; images, losses and gradients are float32.
        early_stop: stop attacking an image once it is misclassified; in training, go on.
        fast, compiled: as for `curricula.victim.frozen.FrozenModel`.

    Raises:
        ValueError: an unknown loss or precision.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: str = "ce",
        precision: Precision = "float32",
        early_stop: bool = False,
        fast: bool = True,
        compiled: int | None = None,
    ) -> None:
        if loss not in ATTACK_LOSSES:
            raise ValueError(f"unknown attack loss {loss!r}; known: {', '.join(ATTACK_LOSSES)}")
        if precision not in ("float32", "bf16"):
            raise ValueError(f"precision must be float32 or bf16, not {precision!r}")
        self._frozen = FrozenModel(model, precision, fast=fast, compiled=compiled)
        self._loss = ATTACK_LOSSES[loss]
        self._early_stop = early_stop
        self._reference: Callable[[], Tensor] = _no_reference

    def _sharing(self, reference: Callable[[], Tensor]) -> "ModelVictim":
        other = copy.copy(self)
        other._reference = reference
        return other

    def logits(self, x_NCHW: Tensor) -> Tensor:
        """logits_NK in float32, differentiable in x."""
        return self._forward(x_NCHW)

    def _forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor = self._frozen(x_NCHW)
        return logits

    def gradient(
        self, x_NCHW: Tensor, y_N: Tensor, loss: AttackLoss | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(grad_NCHW, loss_N, logits_NK), detached; see curricula.interfaces.Victim."""
        with torch.enable_grad():
            x = x_NCHW.detach().requires_grad_()
            logits = self._forward(x)
            loss_N = (loss or self._loss)(logits, y_N, self._reference)
            (gradient,) = torch.autograd.grad(loss_N.sum(), x)
        if self._frozen.replays:
            gradient = gradient.clone()
        return gradient, loss_N.detach(), logits.detach()

    def with_reference(self, x_NCHW: Tensor) -> "ModelVictim":
        """The same victim for losses that compare with the logits at x, computed if asked for."""
        # A perturbation begins here: never with weights of the past.
        self._frozen.refresh(certainly=True)
        anchor = x_NCHW.detach()
        known: list[Tensor] = []

        def reference() -> Tensor:
            if not known:
                with torch.no_grad():
                    known.append(self._forward(anchor))
            return known[0]

        return self._sharing(reference)

    def subset(self, index: Tensor) -> "ModelVictim":
        """The same victim for some of the images that its reference is for."""
        reference = self._reference
        return self._sharing(lambda: reference()[index])

    def active(self, logits_NK: Tensor, y_N: Tensor) -> Tensor:
        """Which images are worth attacking on; see curricula.interfaces.Victim."""
        return logits_NK.argmax(1) == y_N if self._early_stop else torch.ones_like(y_N).bool()

    def as_module(self) -> nn.Module:
        """A frozen module from images to logits_NK. It is at rest whatever its caller asks for."""
        return self._frozen


def _no_reference() -> Tensor:
    raise ValueError(
        "this loss compares with a reference: take it of victim.with_reference(x), not of victim"
    )
