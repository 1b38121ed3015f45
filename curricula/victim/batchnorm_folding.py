"""A network at rest made of cheaper arithmetic: batch norm folded, weights rounded once.

Nothing here changes the network itself: a frozen copy of it is changed, and the tensors that the
copy then has of its own are derived from the network's, anew whenever those move.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator

import attrs
import torch
import torch.fx
from torch import Tensor, nn

from curricula.runtime.memory_format import as_channels_last
from curricula.victim.input_conv import FastInputGradConv2d, has_no_hooks, is_supported

Layer = nn.Conv2d | nn.Linear


@attrs.frozen(kw_only=True, eq=False)
class FoldedLayer:
    """A layer of the copy whose tensors are computed from layers of the network.

    Attributes:
        source: the network's convolution or linear layer.
        norm: the batch norm that is folded into it, if one is.
        target: the copy's layer.
    """

    source: Layer
    norm: nn.BatchNorm2d | None
    target: Layer

    def refresh(self) -> None:
        """Compute the copy's tensors from the network's present ones, in place and in one go."""
        source, norm, target = self.source, self.norm, self.target
        if norm is None:
            target.weight.copy_(source.weight)
            if source.bias is not None:
                assert target.bias is not None
                target.bias.copy_(source.bias)
            return
        assert target.bias is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        bias = -norm.running_mean if source.bias is None else source.bias - norm.running_mean
        if norm.affine:
            scale = scale * norm.weight
        bias = bias * scale
        torch.mul(source.weight, scale[:, None, None, None], out=target.weight)
        target.bias.copy_(bias + norm.bias if norm.affine else bias)


def derive(
    network: nn.Module, copy: nn.Module, *, fast: bool, rounded: torch.dtype | None
) -> list[FoldedLayer]:
    """Change a copy that shares a network's tensors: fold its batch norms, exchange the layer that
    reads the image, round its weights.

    The weights of plain convolutions and linear layers are stored in the dtype that autocast
    would cast them to in every single pass.

    Args:
        network: at whose tensors the copy works.
        copy: a copy of its modules, frozen and in evaluation mode; it is changed.
        fast: fold each batch norm that follows a convolution into it, and take
            curricula.victim.input_conv for a convolution of few channels.
        rounded: the dtype of the weights, or None to leave them.

    Returns:
        The layers that have tensors of their own now; their values are computed.
    """
    folded = dict(foldable(copy)) if fast else {}
    derived = []
    for name, layer in list(copy.named_modules()):
        if type(layer) not in (nn.Conv2d, nn.Linear) or not layer.weight.is_floating_point():
            continue
        if name not in folded and rounded is None:
            continue
        source = network.get_submodule(name)
        assert isinstance(source, Layer)
        assert isinstance(layer, Layer)
        norm = network.get_submodule(folded[name]) if name in folded else None
        assert norm is None or isinstance(norm, nn.BatchNorm2d)
        dtype = rounded or layer.weight.dtype
        layer.weight = _own(layer.weight, dtype)
        if norm is not None:
            assert norm.running_mean is not None
            layer.bias = _own(norm.running_mean, dtype)
            copy.set_submodule(folded[name], nn.Identity())
        elif layer.bias is not None:
            layer.bias = _own(layer.bias, dtype)
        derived.append(FoldedLayer(source=source, norm=norm, target=layer))
    for one in derived:
        one.refresh()
    for name, layer in list(copy.named_modules()) if fast else []:
        if name and is_supported(layer):
            assert isinstance(layer, nn.Conv2d)
            copy.set_submodule(name, FastInputGradConv2d(layer))
    return derived


def _own(tensor: Tensor, dtype: torch.dtype) -> nn.Parameter:
    empty = torch.empty_like(tensor, dtype=dtype)
    return nn.Parameter(as_channels_last(empty) if empty.dim() == 4 else empty, requires_grad=False)


def foldable(network: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of each convolution and of the batch norm that alone reads its output.

    torch.fx follows the network's code, on a copy without memory, to find them; what it cannot
    follow (code that looks at the values of its input) has none. The network's own code is what
    runs afterwards, and a wrong guess of the tracer's shows when it is tried
    (curricula.victim.equivalence).

    Args:
        network: in evaluation mode.
    """
    try:
        graph = torch.fx.Tracer().trace(
            copy_with_tensors(network, lambda tensor: tensor.to("meta"))
        )
    except Exception:  # whatever the network's code does with a tensor that has no value
        return
    used = Counter(node.target for node in graph.nodes if node.op == "call_module")
    # A layer whose tensors the code also reads by itself must keep them.
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        if node.op != "call_module" or len(node.all_input_nodes) != 1:
            continue
        before = node.all_input_nodes[0]
        names = (str(before.target), str(node.target))
        if (
            before.op == "call_module"
            and len(before.users) == 1
            and not read.intersection(names)
            and all(used[name] == 1 for name in names)
            and _fold(network.get_submodule(names[0]), network.get_submodule(names[1]))
        ):
            yield names


def _fold(before: nn.Module, after: nn.Module) -> bool:
    """Whether two layers are a convolution and a batch norm with nothing peculiar about them."""
    return (
        type(before) is nn.Conv2d
        and type(after) is nn.BatchNorm2d
        and after.running_mean is not None
        and after.running_mean.dtype == before.weight.dtype
        and has_no_hooks(before)
        and has_no_hooks(after)
    )


def copy_with_tensors(network: nn.Module, tensor_for: Callable[[Tensor], Tensor]) -> nn.Module:
    """A deep copy of the modules around other tensors, which ask for no gradients.

    Args:
        network: whose modules.
        tensor_for: what takes the place of a parameter or buffer.
    """
    memo: dict[int, Tensor] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(tensor_for(parameter), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = tensor_for(buffer)
    return copy.deepcopy(network, memo)
