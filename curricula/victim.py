"""The model as a perturbation sees it: at rest. Every way of attacking faster lives in here."""

import copy
from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from curricula.interfaces import AttackLoss, HasPlainEquivalent
from curricula.losses import ATTACK_LOSSES

Precision = Literal["float32", "bf16"]

_updates = 0


def _count_update(*_: object) -> None:
    global _updates
    _updates += 1


# Fused optimisers write weights without moving their version counters, so each step is counted.
register_optimizer_step_post_hook(_count_update)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a network runs at a precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class RestingModel(nn.Module):
    """A frozen twin of a network: its tensors *are* the network's, its flags are its own.

    The twin shares every parameter and buffer, so it follows each optimiser step at no cost, yet
    it is in evaluation mode and asks for no weight gradients. The network itself, its flags and
    its gradients are never touched. Where the network offers a plain equivalent of itself, the
    twin is that, made anew whenever a weight has changed.

    What is neither a parameter nor a buffer is copied once: a plain attribute that the network
    changes later is not followed.
    """

    def __init__(self, model: nn.Module, precision: Precision = "float32") -> None:
        super().__init__()
        self._source = [model]  # in a list: not a submodule, or parameters() would see both
        self.precision = precision
        self._seen: tuple[int, tuple[tuple[int, int], ...]] = (0, ())
        self._rest()
        self.requires_grad_(False)
        super().train(False)

    def _rest(self) -> None:
        self._seen = self._weights()
        model = self._source[0]
        if isinstance(model, HasPlainEquivalent):
            with torch.no_grad():
                self.twin = model.plain_equivalent().eval().requires_grad_(False)
        else:
            self.twin = _twin(model)

    def _weights(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Optimiser steps so far, and of each tensor where it lies and how often it was written."""
        model = self._source[0]
        return _updates, tuple(
            (tensor.data_ptr(), tensor._version)
            for tensors in (model.parameters(), model.buffers())
            for tensor in tensors
        )

    def refresh(self) -> None:
        """Follow the network where sharing its tensors does not do so by itself."""
        seen = self._weights()
        if seen == self._seen:
            return
        moved = [a for a, _ in seen[1]] != [a for a, _ in self._seen[1]]
        if moved or isinstance(self._source[0], HasPlainEquivalent):
            self._rest()
        self._seen = seen

    def train(self, mode: bool = True) -> Self:
        """A model at rest stays at rest."""
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """logits_NK in float32."""
        self.refresh()
        with autocast(x_NCHW.device, self.precision):
            logits: Tensor = self.twin(x_NCHW.contiguous(memory_format=torch.channels_last))
        return logits.float()


def _twin(model: nn.Module) -> nn.Module:
    """A deep copy of the modules around the very same storage, frozen and at rest."""
    shared: dict[int, Tensor] = {}
    for parameter in model.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        shared[id(buffer)] = buffer.detach()
    return copy.deepcopy(model, shared).eval()


class ModelVictim:
    """The victim of a model: the only door between a perturbation and the network.

    Args:
        model: any module from images in [0, 1] to logits.
        loss: what `gradient` ascends where a perturbation names no loss of its own: a name of
            curricula.losses.ATTACK_LOSSES.
        precision: of the network's arithmetic; images, losses and gradients are float32.
        threat: an image that is misclassified is not attacked on; in training its loss may grow.

    Raises:
        ValueError: an unknown loss or precision.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: str = "ce",
        precision: Precision = "float32",
        threat: bool = False,
    ) -> None:
        if loss not in ATTACK_LOSSES:
            raise ValueError(f"unknown attack loss {loss!r}; known: {', '.join(ATTACK_LOSSES)}")
        if precision not in ("float32", "bf16"):
            raise ValueError(f"precision must be float32 or bf16, not {precision!r}")
        self._resting = RestingModel(model, precision)
        self._loss = ATTACK_LOSSES[loss]
        self._threat = threat
        self._reference: Callable[[], Tensor] = _unanchored

    def _sharing(self, reference: Callable[[], Tensor]) -> "ModelVictim":
        other = copy.copy(self)
        other._reference = reference
        return other

    def logits(self, x_NCHW: Tensor) -> Tensor:
        """logits_NK in float32, differentiable in x."""
        return self._forward(x_NCHW)

    def _forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor = self._resting(x_NCHW)
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
        return gradient, loss_N.detach(), logits.detach()

    def anchored(self, x_NCHW: Tensor) -> "ModelVictim":
        """The same victim for losses that compare with the logits at x, computed if asked for."""
        anchor = x_NCHW.detach()
        known: list[Tensor] = []

        def reference() -> Tensor:
            if not known:
                with torch.no_grad():
                    known.append(self._forward(anchor))
            return known[0]

        return self._sharing(reference)

    def subset(self, index: Tensor) -> "ModelVictim":
        """The same victim for some of the images that it is anchored at."""
        reference = self._reference
        return self._sharing(lambda: reference()[index])

    def standing(self, logits_NK: Tensor, y_N: Tensor) -> Tensor:
        """Which images are worth attacking on; see curricula.interfaces.Victim."""
        return logits_NK.argmax(1) == y_N if self._threat else torch.ones_like(y_N).bool()

    def as_module(self) -> nn.Module:
        """A frozen module from images to logits_NK. It is at rest whatever its caller asks for."""
        return self._resting


def _unanchored() -> Tensor:
    raise ValueError(
        "this loss compares with a reference: take it of victim.anchored(x), not of victim"
    )
