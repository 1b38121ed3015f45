"""Deep copies of networks, and copies of their tensors."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from curricula.errors import UserError


class _CopyNonLeaves(TorchFunctionMode):
    """Make ``copy.deepcopy`` copy the values of tensors that have a gradient function.

    Such tensors are kept by the old ``spectral_norm`` and ``weight_norm``, which compute a weight
    in each pass, and by networks that store their features; `torch.Tensor` refuses to copy them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def is_scripted(network: nn.Module) -> bool:
    """Return whether a network is, or has a part that is, scripted or traced."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())


def copied(network: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return a deep copy of a network; of tensors that have a gradient function, such as kept
    features, it has the values, and of parts made by `torch.compile` what they were made from.

    Args:
        network: the network to copy; it is not changed.
        memo: replacements of objects inside the network, by their id, as for `copy.deepcopy`.

    Example:
        >>> network = nn.utils.spectral_norm(nn.Linear(4, 3))
        >>> logits = network(torch.rand(2, 4))  # computes a weight that has a gradient function
        >>> copied(network).weight.shape
        torch.Size([3, 4])
    """
    scripted = is_scripted(network)
    memo = _empty_hooks(network) | (memo or {})
    with _CopyNonLeaves(), torch.no_grad() if scripted else nullcontext():
        for part in reversed([*network.modules()]):  # inner ones first
            if _is_compiled(part):
                memo[id(part)] = copy.deepcopy(part._orig_mod, memo)
        found: nn.Module = copy.deepcopy(network, memo)
    if scripted:  # TorchScript copies weights by an operation, so their copies would be no leaves
        for weight, source in zip(found.parameters(), network.parameters(), strict=True):
            weight.requires_grad_(source.requires_grad)
    return found


def _is_compiled(network: nn.Module) -> bool:
    """Return whether a network was made by `torch.compile`, whose module takes seconds to import.

    Raises:
        UserError: it has hooks, which what it was made from has not.
    """
    kind = type(network)
    if not (kind.__module__.startswith("torch._dynamo.") and kind.__name__ == "OptimizedModule"):
        return False
    if network._forward_hooks or network._forward_pre_hooks:
        raise UserError(
            "the model is compiled and has hooks that the network inside has not: register them on "
            "that network, before torch.compile"
        )
    return True


def uncompiled(network: nn.Module) -> nn.Module:
    """Return a network without `torch.compile`: what it was made from; where only parts of it are
    compiled, a deep copy; and else the network itself.

    Raises:
        UserError: a compiled form has hooks.

    Example:
        >>> layer = nn.Linear(4, 3)
        >>> uncompiled(torch.compile(layer)) is layer
        True
    """
    if _is_compiled(network):
        return uncompiled(network._orig_mod)  # type: ignore[arg-type]
    return copied(network) if any(map(_is_compiled, network.modules())) else network


def copy_with_tensors(network: nn.Module, tensor_for: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a deep copy of a network, each of whose tensors is replaced by ``tensor_for`` of it
    and requires no gradient.

    Args:
        network: the network to copy.
        tensor_for: returns the tensor that replaces a parameter or buffer.
    """
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(tensor_for(parameter), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = tensor_for(buffer)
    return copied(network, memo)


def _empty_hooks(network: nn.Module) -> dict[int, Any]:
    """Return a new one for each empty ordered dictionary of a network's modules, by its id: each
    module has eleven for hooks, and ``copy.deepcopy`` takes half its time on them."""
    return {
        id(value): OrderedDict()
        for module in network.modules()
        for value in vars(module).values()
        if type(value) is OrderedDict and not value
    }


StoredTensor: TypeAlias = tuple[nn.Module, str, Tensor, Tensor]
"""(module, name, parameter or buffer, copy of its values)"""


def registered(network: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """Return (module, name, tensor) of each parameter and buffer of a network."""
    return [
        (module, name, tensor)
        for module in network.modules()
        for tensors in (module._parameters, module._buffers)
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    ]


def values_of(network: nn.Module) -> list[StoredTensor]:
    """Return each parameter and buffer of a network with a copy of its values."""
    return [
        (module, name, tensor, tensor.detach().clone())
        for module, name, tensor in registered(network)
    ]


def moved_names(stored: Sequence[StoredTensor]) -> list[str]:
    """Return the names of the tensors whose values differ from the stored ones."""
    return [name for module, name, _, value in stored if not _same(getattr(module, name), value)]


def restore(stored: Sequence[StoredTensor]) -> None:
    """Give modules their stored tensors back, with the stored values."""
    with torch.no_grad():
        for module, name, tensor, value in stored:
            if not _same(tensor, value):
                tensor.copy_(value)
            if name in module._buffers and module._buffers[name] is not tensor:
                module._buffers[name] = tensor


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Restore a network's parameters and buffers after the block."""
    stored = values_of(network)
    try:
        yield
    finally:
        restore(stored)


def _same(found: Tensor | None, expected: Tensor) -> bool:
    """Return whether tensors have the same values; NaN equals NaN."""
    if found is None or found.shape != expected.shape:
        return False
    if found.dtype == expected.dtype and torch.equal(found, expected):
        return True
    return bool(((found == expected) | ((found != found) & (expected != expected))).all())
