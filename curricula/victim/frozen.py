"""The model at rest: a frozen copy of a network, as fast as can be."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from curricula.interfaces import HasPlainEquivalent
from curricula.runtime.compile import Compiled
from curricula.runtime.precision import Precision, autocast
from curricula.victim.batchnorm_folding import FoldedLayer, copy_with_tensors, derive
from curricula.victim.equivalence import outputs_match

_updates = 0


def _count_update(*_: object) -> None:
    global _updates
    _updates += 1


# Fused optimisers write weights without moving their version counters, so each step is counted.
register_optimizer_step_post_hook(_count_update)


class FrozenModel(nn.Module):
    """A frozen copy of a network: its tensors *are* the network's, its flags are its own.

    The copy shares parameters and buffers, so it follows each optimiser step, yet it is in
    evaluation mode and asks for no weight gradients. The network itself, its flags and its
    gradients are never touched. Where the network offers a plain equivalent of itself, the copy
    is that. What is computed from the network's tensors (folded batch norms, rounded weights, a
    plain equivalent) is computed once after a change of weights, into the same memory.

    At its first images the cheaper form is compared with the network itself; where it computes
    something else, the network runs as it is.

    What is neither a parameter nor a buffer is copied once: a plain attribute that the network
    changes later is not followed.

    Args:
        model: the network.
        precision: of its arithmetic.
        fast: do the same with cheaper arithmetic (see `batchnorm_folding`); it differs by rounding.
        compiled: compile the copy for batches of so many images, see curricula.runtime.compile.

    Attributes:
        replays: its gradients lie in memory that its next pass writes again.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision = "float32",
        *,
        fast: bool = True,
        compiled: int | None = None,
    ) -> None:
        super().__init__()
        self._source = [model]  # in lists: not submodules, or parameters() would see them too
        self.precision = precision
        self._fast, self._compiled_for = fast, compiled
        self._tried = not fast
        self._rounded = torch.bfloat16 if precision == "bf16" else None
        self._build()
        self.requires_grad_(False)
        super().train(False)

    def _build(self) -> None:
        self._seen = self._weights()
        model = self._source[0]
        with torch.no_grad():
            plain = model.plain_equivalent() if isinstance(model, HasPlainEquivalent) else model
            # The very same storage.
            copy = copy_with_tensors(plain, Tensor.detach).eval()
            derived = derive(plain, copy, fast=self._fast, rounded=self._rounded)
        self._plain: list[nn.Module] = [plain]
        self._derived: list[FoldedLayer] = derived
        self.replays = False
        if self._compiled_for is not None:
            self.replays = any(tensor.is_cuda for tensor in _tensors(copy).values())
            copy = Compiled(copy, self._compiled_for, graphs=self.replays)
        self.copy = copy

    def _weights(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Optimiser steps so far, and of each tensor where it lies and how often it was written."""
        model = self._source[0]
        return _updates, tuple(
            (tensor.data_ptr(), tensor._version)
            for tensors in (model.parameters(), model.buffers())
            for tensor in tensors
        )

    def refresh(self, *, certainly: bool = False) -> None:
        """Follow the network where sharing its tensors does not do so by itself.

        Args:
            certainly: compute what is derived from tensors even if no change of them can be seen:
                a write through ``.data`` cannot.
        """
        seen = self._weights()
        if seen != self._seen:
            moved = [place for place, _ in seen[1]] != [place for place, _ in self._seen[1]]
            if moved or not self._refresh_plain():
                self._build()
                return
            self._seen = seen
        elif not certainly:
            return
        with torch.no_grad():
            for derived in self._derived:
                derived.refresh()

    def _refresh_plain(self) -> bool:
        """Bring the plain equivalent up to date; False if it has another form than before."""
        model = self._source[0]
        if not isinstance(model, HasPlainEquivalent):
            return True
        with torch.no_grad():
            new, old = _tensors(model.plain_equivalent()), _tensors(self._plain[0])
            if {name: tensor.shape for name, tensor in new.items()} != {
                name: tensor.shape for name, tensor in old.items()
            }:
                return False
            for name, tensor in old.items():
                tensor.copy_(new[name])
        return True

    def train(self, mode: bool = True) -> Self:
        """A model at rest stays at rest."""
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """logits_NK in float32."""
        self.refresh()
        if not self._tried:
            self._try(x_NCHW)
        x = x_NCHW.contiguous(
            memory_format=torch.channels_last if self._fast else torch.contiguous_format
        )
        try:
            return self._logits(x)
        except RuntimeError:
            if self._rounded is None:
                raise
            # Code that leaves autocast for a layer in float32 cannot have its weights rounded.
            self._rounded = None
            self._build()
            return self._logits(x)

    def _try(self, x_NCHW: Tensor) -> None:
        """Compare the cheap form with the network itself, once; leave it if it is not the same."""
        self._tried = True
        plain = self._plain[0]
        network, form = (copy_with_tensors(plain, Tensor.clone).eval() for _ in range(2))
        with torch.no_grad():
            derive(plain, form, fast=True, rounded=None)
        if not outputs_match(form, network, x_NCHW):
            self._fast, self._rounded = False, None
            self._build()

    def _logits(self, x_NCHW: Tensor) -> Tensor:
        with autocast(x_NCHW.device, self.precision):
            logits: Tensor = self.copy(x_NCHW)
        logits = logits.float()
        return logits.clone() if self.replays else logits


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
