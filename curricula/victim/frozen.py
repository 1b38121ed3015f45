"""A frozen copy of a network in eval mode, in a form that is as fast as possible."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook

from curricula.errors import UserError
from curricula.interfaces import HasPlainEquivalent
from curricula.runtime.compile import Compiled
from curricula.runtime.default_device import cpu_by_default
from curricula.runtime.modes import as_ordinary, default_dtype, outside_inference_mode
from curricula.runtime.precision import Precision, autocast, weight_dtype
from curricula.victim.batchnorm_folding import FoldedLayer, foldable_pairs, simplify
from curricula.victim.copies import copied, restored
from curricula.victim.equivalence import MAX_IMAGES, outputs_match
from curricula.victim.forms import (
    Choice,
    Form,
    choose_form,
    eval_copy,
    frozen_in_place,
    least_form,
    shared_copy,
    shares_tensors,
)
from curricula.victim.outputs import check_finite, checked_logits
from curricula.victim.replayed import ReplayedPasses

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

    On its first images, the copy checks that it computes what the network computes, also after a
    change of weights. Otherwise it becomes a deep copy that is made again after each change, or
    runs the network itself with its flags set for the pass (see `curricula.victim.forms`). It also
    compares the cheaper form with the network; if their logits differ, it runs the network's own
    code.

    Images are given to the network in the dtype of its weights, and as a copy, so that a network
    may write to them.

    Attributes that are neither parameters nor buffers are copied once; later changes of them are
    not followed.

    Args:
        model: the network.
        precision: precision of the copy's arithmetic, ``float32`` or ``bf16``.
        fast: use cheaper arithmetic (see `curricula.victim.batchnorm_folding`), which differs by
            rounding.
        compiled: compile the copy for this batch size (see `curricula.runtime.compile`); None does
            not compile.
        replayed: on a GPU, replay passes of batches of this size inside `gradient_pass` (see
            `curricula.victim.replayed`); None never does.
        check_finite: refuse logits that are not finite on the first images.

    Attributes:
        network: the copy itself; an empty module where the network itself is run.
        was_replayed: whether the last pass was replayed: the next one overwrites its gradient.
        gradient_passes: number of passes so far on images that require a gradient.

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
        replayed: int | None = None,
        check_finite: bool = True,
    ) -> None:
        super().__init__()
        _start_counting_steps()
        self._source = [model]  # lists hide modules from parameters(), which would repeat them
        self.precision = precision
        self._fast, self._compiled_for, self._replayed_for = fast, compiled, replayed
        self._compared = False
        self._stale = False
        self._in_gradient_pass = self._may_replay = self.was_replayed = False
        self._check_finite = check_finite
        self.gradient_passes = 0
        self._weight_dtype = torch.bfloat16 if precision == "bf16" else None
        self._default_dtype = torch.get_default_dtype()
        self._has_plain = isinstance(model, HasPlainEquivalent)
        self._others: Sequence[nn.Module] = ()
        with outside_inference_mode(), cpu_by_default():
            self._use(Choice(form=Form.SHARED if self._has_plain else least_form(model)))
        super().train(False)

    def _use(self, choice: Choice) -> None:
        """Run the network in a form from now on."""
        self._form, self._others = choice.form, choice.others
        if choice.form is not Form.SHARED:
            self._fast, self._weight_dtype = False, None
        self._build()

    def _build(self) -> None:
        self._seen = self._weight_versions()
        model = self._source[0]
        self._plain: list[nn.Module] = [model]
        self._folded_layers: list[FoldedLayer] = []
        self._norm_names: dict[str, str] = {}
        self._replayed: ReplayedPasses | None = None
        self._dtype = weight_dtype(model)
        if self._form is Form.ITSELF:
            self.network: nn.Module = nn.Identity()
        elif self._form is Form.COPIED:
            self.network = eval_copy(model)
        else:
            self._build_shared(model)
        self.requires_grad_(False)

    def _build_shared(self, model: nn.Module) -> None:
        with torch.no_grad():
            plain = model
            if self._has_plain:
                assert isinstance(model, HasPlainEquivalent)
                plain = model.plain_equivalent()
            try:
                network = shared_copy(plain)
                form = Form.SHARED if shares_tensors(network, plain) else Form.COPIED
            except UserError:
                raise
            except Exception:  # an attribute that cannot be copied
                form = Form.ITSELF
            if form is not Form.SHARED:
                self._has_plain = False
                self._use(Choice(form=form))
                return
            self._norm_names = dict(foldable_pairs(network)) if self._fast else {}
            self._folded_layers = simplify(
                network, plain, self._norm_names, fast=self._fast, weight_dtype=self._weight_dtype
            )
        self._plain = [plain]
        if self._compiled_for is not None:
            network = Compiled(network, self._compiled_for)
        if self._replayed_for is not None:
            self._replayed = ReplayedPasses(network, self._replayed_for)
        self.network = network

    def _weight_versions(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Return the number of optimiser steps so far, and the address and version of each tensor
        of the network: they change when weights do."""
        # In every pass: parameters() and buffers() take three times as long.
        return _optimizer_steps, tuple(
            (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
            for module in self._source[0].modules()
            for tensors in (module._parameters, module._buffers)
            for tensor in tensors.values()
            if tensor is not None
        )

    def expect_changes(self) -> None:
        """Let the next pass recompute the copy's tensors even if no change of weights is visible,
        as after a write through ``.data``."""
        self._stale = True

    def refresh(self) -> None:
        """Recompute the copy's folded, rounded and plain-equivalent tensors, or the whole copy
        where it shares none, if the network's weights have changed or are expected to have."""
        always, self._stale = self._stale, False
        if self._form is Form.ITSELF:
            return
        seen = self._weight_versions()
        if self._form is Form.COPIED:
            if always or seen != self._seen:
                self._build()
            return
        if seen == self._seen and not always:
            return
        moved = [address for address, _ in seen[1]] != [address for address, _ in self._seen[1]]
        if moved or not self._refresh_plain():
            self._build()
            return
        self._seen = seen
        with torch.no_grad():
            for layer in self._folded_layers:
                layer.refresh()

    def _refresh_plain(self) -> bool:
        """Update the plain equivalent's tensors in place; return False if their names or shapes
        have changed."""
        model = self._source[0]
        if not self._has_plain:
            return True
        assert isinstance(model, HasPlainEquivalent)
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

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format in which the network is given its images."""
        return torch.channels_last if self._fast else torch.contiguous_format

    @contextmanager
    def gradient_pass(self) -> Iterator[None]:
        """Let the first pass inside the block be replayed. Its backward pass must come in the block
        too, and its gradient be copied if `was_replayed`.

        Further passes, and those of a block inside this one, run the network: they may come before
        the backward pass.
        """
        inside = self._in_gradient_pass
        self._in_gradient_pass, self._may_replay = True, not inside
        try:
            yield
        finally:
            self._in_gradient_pass, self._may_replay = inside, False

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return logits (N, K) in float32 for images NCHW.

        Raises:
            UserError: the model's output does not hold floating logits (N, K), or on the first
                images one is not finite; the model cannot be run in eval mode without changing it.
        """
        self.gradient_passes += x_NCHW.requires_grad and torch.is_grad_enabled()
        with outside_inference_mode(), cpu_by_default():
            images = as_ordinary(x_NCHW)
            self.refresh()
            first = not self._compared and len(images) > 0
            if first:
                self._compare(images)
            x = images.to(self._dtype or images.dtype).contiguous(memory_format=self.memory_format)
            if x is x_NCHW:
                x = x.clone()  # the network may write to it
            logits = self._tried_logits(x)
            if first and self._check_finite:
                check_finite(logits.detach()[:MAX_IMAGES])
            return logits

    def _tried_logits(self, x_NCHW: Tensor) -> Tensor:
        try:
            return self._logits(x_NCHW)
        except RuntimeError:
            if self._weight_dtype is None:
                raise
            # Code that leaves autocast for a layer in float32 does not work with rounded weights.
            self._weight_dtype = None
            self._build()
            return self._logits(x_NCHW)

    @property
    def form(self) -> tuple[bool, bool, bool] | None:
        """(cheaper arithmetic, rounded weights, shared tensors): three flags for what the copy
        uses, decided on the first images; None before them."""
        if not self._compared:
            return None
        return self._fast, self._weight_dtype is not None, self._form is Form.SHARED

    def use_form(self, form: Sequence[bool]) -> None:
        """Use (cheaper arithmetic, rounded weights, shared tensors) as decided in an earlier run,
        where the network has them, without comparing logits again.

        Raises:
            ValueError: there are not three flags.
        """
        fast, rounded, shared = form
        if self._form is not Form.SHARED or not shared:
            return  # decided again on the first images
        own = (self._fast, self._weight_dtype is not None)
        used = (fast and own[0], rounded and own[1])
        self._compared = True
        if used != own:
            self._fast = used[0]
            self._weight_dtype = torch.bfloat16 if used[1] else None
            self._build()

    def _compare(self, x_NCHW: Tensor) -> None:
        """Choose the form on the first images, and drop the cheaper arithmetic if its logits are
        not the network's."""
        x = x_NCHW.detach()[:MAX_IMAGES].to(self._dtype or x_NCHW.dtype)
        with torch.no_grad(), self._modes(x, "float32"):
            if self._has_plain and not _plain_matches(self._source[0], self._plain[0], x):
                self._has_plain = False
                self._use(Choice(form=Form.COPIED))
            if not self._has_plain:
                choice = choose_form(self._source[0], x, self._form)
                if choice.form is not self._form or choice.others:
                    self._use(choice)
            if self._fast and not self._is_fast_form_right(x):
                self._fast, self._weight_dtype = False, None
                self._build()
        self._compared = True

    def _is_fast_form_right(self, x_NCHW: Tensor) -> bool:
        plain = self._plain[0]
        network, form = shared_copy(plain), shared_copy(plain)
        simplify(form, plain, self._norm_names, fast=True, weight_dtype=None)
        return outputs_match(form, network, x_NCHW)

    @contextmanager
    def _modes(self, x_NCHW: Tensor, precision: Precision) -> Iterator[None]:
        """Run the network at a precision, with the default dtype under which it was given, and with
        parametrisations that are computed in every pass."""
        enabled = parametrize._cache_enabled
        parametrize._cache_enabled = 0
        try:
            with autocast(x_NCHW.device, precision), default_dtype(self._default_dtype):
                yield
        finally:
            parametrize._cache_enabled = enabled

    def runner(self, x_NCHW: Tensor) -> Callable[[Tensor], Any]:
        """Return what runs a gradient pass of a batch: the network, or its graph."""
        replayed = self._replayed
        return replayed if replayed is not None and replayed.replays(x_NCHW) else self.network

    def _logits(self, x_NCHW: Tensor) -> Tensor:
        with self._modes(x_NCHW, self.precision):
            run = self.runner(x_NCHW) if self._may_replay else self.network
            self._may_replay, self.was_replayed = False, run is not self.network
            if self._form is Form.ITSELF:
                source = self._source[0]
                with frozen_in_place(source, self._others):
                    output = source(x_NCHW)
            else:
                output = run(x_NCHW)
        logits = checked_logits(output, len(x_NCHW)).float()
        return logits.clone() if self.was_replayed else logits


def _plain_matches(model: nn.Module, plain: nn.Module, x_NCHW: Tensor) -> bool:
    """Return whether a network's plain equivalent has the network's logits."""
    try:
        network = copied(model)
        network.eval()
        with restored(model):  # a copy of it may run its own modules
            return outputs_match(copied(plain), network, x_NCHW)
    except UserError:
        raise
    except Exception:  # only the plain equivalent has to run
        return True


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
