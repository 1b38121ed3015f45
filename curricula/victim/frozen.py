"""A frozen copy of a network in eval mode, in a form that is as fast as possible."""

import functools
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from curricula.interfaces import HasPlainEquivalent
from curricula.runtime.compile import Compiled
from curricula.runtime.precision import Precision, autocast
from curricula.victim.batchnorm_folding import (
    FoldedLayer,
    copy_with_tensors,
    foldable_pairs,
    simplify,
)
from curricula.victim.equivalence import outputs_match

_optimizer_steps = 0  # steps of all optimisers since the first FrozenModel was made


def _count_step(*_: object) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


@functools.cache
def _start_counting_steps() -> None:
    """Register the counter of optimiser steps with torch, once in a process.

    Fused optimisers write weights without moving their version counters, so each step is counted.
    """
    register_optimizer_step_post_hook(_count_step)


class FrozenModel(nn.Module):
    """A copy of a network, always in eval mode and without weight gradients, that shares the
    network's tensors.

    The copy shares the network's parameters and buffers, so it follows each optimiser step; yet it
    is always in eval mode, and its weights require no gradients. It never changes the network's
    flags or gradients. If the network offers a plain equivalent, that one is copied. Tensors that
    are computed from the network's (folded batch norms, rounded weights, a plain equivalent) are
    computed once per change of weights, into the same memory.

    On its first images, the copy compares the cheaper form with the network itself; if their logits
    differ, it runs the network unchanged.

    Attributes that are neither parameters nor buffers are copied once; later changes of them are
    not followed.

    Args:
        model: the network.
        precision: precision of the copy's arithmetic, ``float32`` or ``bf16``.
        fast: use cheaper arithmetic (see `curricula.victim.batchnorm_folding`), which differs by
            rounding.
        compiled: compile the copy for this batch size (see `curricula.runtime.compile`); None does
            not compile.

    Attributes:
        network: the copy itself.
        replays: whether the next pass overwrites the memory of its gradients.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3))
        >>> frozen = FrozenModel(model)
        >>> frozen.train().training, model.training
        (False, True)
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
        _start_counting_steps()
        self._source = [model]  # lists hide modules from parameters(), which would repeat them
        self.precision = precision
        self._fast, self._compiled_for = fast, compiled
        self._compared = not fast
        self._weight_dtype = torch.bfloat16 if precision == "bf16" else None
        self._build()
        self.requires_grad_(False)
        super().train(False)

    def _build(self) -> None:
        self._seen = self._weight_versions()
        model = self._source[0]
        with torch.no_grad():
            plain = model.plain_equivalent() if isinstance(model, HasPlainEquivalent) else model
            # detach: shares the storage.
            network = copy_with_tensors(plain, Tensor.detach).eval()
            self._norm_names = dict(foldable_pairs(network)) if self._fast else {}
            folded_layers = simplify(
                network, plain, self._norm_names, fast=self._fast, weight_dtype=self._weight_dtype
            )
        self._plain: list[nn.Module] = [plain]
        self._folded_layers: list[FoldedLayer] = folded_layers
        self.replays = False
        if self._compiled_for is not None:
            self.replays = any(tensor.is_cuda for tensor in _tensors(network).values())
            network = Compiled(network, self._compiled_for, graphs=self.replays)
        self.network = network

    def _weight_versions(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Return the number of optimiser steps so far, and the address and version of each tensor
        of the network: they change when weights do."""
        # In every pass: parameters() and buffers() take three times as long.
        return _optimizer_steps, tuple(
            (tensor.data_ptr(), tensor._version)
            for module in self._source[0].modules()
            for tensors in (module._parameters, module._buffers)
            for tensor in tensors.values()
            if tensor is not None
        )

    def refresh(self, *, always: bool = False) -> None:
        """Recompute the copy's folded, rounded and plain-equivalent tensors if the network's
        weights have changed.

        Args:
            always: compute them even if no change of weights is visible, as after a write through
                ``.data``.
        """
        seen = self._weight_versions()
        if seen != self._seen:
            moved = [address for address, _ in seen[1]] != [address for address, _ in self._seen[1]]
            if moved or not self._refresh_plain():
                self._build()
                return
            self._seen = seen
        elif not always:
            return
        with torch.no_grad():
            for layer in self._folded_layers:
                layer.refresh()

    def _refresh_plain(self) -> bool:
        """Update the plain equivalent's tensors in place; return False if their names or shapes
        have changed."""
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
        """Do nothing: a frozen copy stays in eval mode."""
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return logits (N, K) in float32 for images NCHW."""
        self.refresh()
        if not self._compared:
            self._compare(x_NCHW)
        x = x_NCHW.contiguous(
            memory_format=torch.channels_last if self._fast else torch.contiguous_format
        )
        try:
            return self._logits(x)
        except RuntimeError:
            if self._weight_dtype is None:
                raise
            # Code that leaves autocast for a layer in float32 does not work with rounded weights.
            self._weight_dtype = None
            self._build()
            return self._logits(x)

    @property
    def form(self) -> tuple[bool, bool] | None:
        """(cheaper arithmetic, rounded weights): two flags for what the copy uses, decided on the
        first images; None before them."""
        return (self._fast, self._weight_dtype is not None) if self._compared else None

    def use_form(self, form: tuple[bool, bool]) -> None:
        """Use (cheaper arithmetic, rounded weights) as decided in an earlier run, where the network
        has them, without comparing logits again."""
        own = (self._fast, self._weight_dtype is not None)
        form = (form[0] and own[0], form[1] and own[1])
        self._compared = True
        if form != own:
            self._fast = form[0]
            self._weight_dtype = torch.bfloat16 if form[1] else None
            self._build()

    def _compare(self, x_NCHW: Tensor) -> None:
        """Compare the logits of the cheaper form and of the network once, and drop the cheaper form
        if they differ."""
        self._compared = True
        plain = self._plain[0]
        network, form = (copy_with_tensors(plain, Tensor.clone).eval() for _ in range(2))
        with torch.no_grad():
            simplify(form, plain, self._norm_names, fast=True, weight_dtype=None)
        if not outputs_match(form, network, x_NCHW):
            self._fast, self._weight_dtype = False, None
            self._build()

    def _logits(self, x_NCHW: Tensor) -> Tensor:
        with autocast(x_NCHW.device, self.precision):
            logits: Tensor = self.network(x_NCHW)
        logits = logits.float()
        return logits.clone() if self.replays else logits


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
