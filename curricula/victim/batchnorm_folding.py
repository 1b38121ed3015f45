"""Cheaper arithmetic for a network in eval mode: batch norms folded, weights rounded only once.

These functions change a frozen copy, never the network itself. Tensors that the copy does not share
with the network are computed from the network's, again after each change.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import attrs
import torch
import torch.fx
from torch import Tensor, nn

from curricula.runtime.memory_format import as_channels_last
from curricula.victim.copies import copy_with_tensors, uncompiled
from curricula.victim.input_conv import FastInputGradConv2d, has_no_hooks, is_supported

Layer = nn.Conv2d | nn.Linear


@attrs.frozen(kw_only=True, eq=False)
class FoldedLayer:
    """A layer of the frozen copy whose weight and bias are computed from the network's layers.

    Attributes:
        source: the network's convolution or linear layer.
        norm: the batch norm to fold into it, or None.
        target: the copy's layer.
    """

    source: Layer
    norm: nn.BatchNorm2d | None
    target: Layer

    def refresh(self) -> None:
        """Compute the copy's weight and bias from the network's current ones, in place."""
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


def simplify(
    copy: nn.Module,
    network: nn.Module,
    norm_names: Mapping[str, str],
    *,
    fast: bool,
    weight_dtype: torch.dtype | None,
) -> list[FoldedLayer]:
    """Fold a copy's batch norms, replace its first convolution, round its weights, and return the
    layers whose tensors are computed from the network's.

    Plain convolutions and linear layers store their weights in the dtype to which autocast would
    otherwise cast them in every pass.

    Args:
        copy: a frozen copy of the network's modules in eval mode, which shares the network's
            tensors; changed in place.
        network: the network.
        norm_names: name of the batch norm to fold into a convolution, by the name of the
            convolution, as `foldable_pairs` yields them.
        fast: replace convolutions with few input channels by `FastInputGradConv2d`.
        weight_dtype: dtype of the weights, or None to keep it.

    Returns:
        The layers that no longer share the network's tensors, already computed.
    """
    folded_layers = []
    for name, layer in list(copy.named_modules()):
        if type(layer) not in (nn.Conv2d, nn.Linear) or not layer.weight.is_floating_point():
            continue
        if "weight" not in layer._parameters:
            continue  # computed in each pass, as by the old spectral norm
        if name not in norm_names and weight_dtype is None:
            continue
        source = uncompiled(network.get_submodule(name))
        assert isinstance(source, Layer)
        assert isinstance(layer, Layer)
        norm = uncompiled(network.get_submodule(norm_names[name])) if name in norm_names else None
        assert norm is None or isinstance(norm, nn.BatchNorm2d)
        dtype = weight_dtype or layer.weight.dtype
        layer.weight = _empty_parameter(layer.weight, dtype)
        if norm is not None:
            assert norm.running_mean is not None
            layer.bias = _empty_parameter(norm.running_mean, dtype)
            copy.set_submodule(norm_names[name], nn.Identity())
        elif layer.bias is not None:
            layer.bias = _empty_parameter(layer.bias, dtype)
        folded_layers.append(FoldedLayer(source=source, norm=norm, target=layer))
    for folded in folded_layers:
        folded.refresh()
    for name, layer in list(copy.named_modules()) if fast else []:
        if name and is_supported(layer):
            assert isinstance(layer, nn.Conv2d)
            copy.set_submodule(name, FastInputGradConv2d(layer))
    return folded_layers


def _empty_parameter(like: Tensor, dtype: torch.dtype) -> nn.Parameter:
    empty = torch.empty_like(like, dtype=dtype)
    return nn.Parameter(as_channels_last(empty) if empty.dim() == 4 else empty, requires_grad=False)


def foldable_pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution and the batch norm after it, if nothing else reads the
    convolution's output.

    torch.fx traces the network's code on a copy on the meta device. Code that it cannot trace
    (because it looks at the values of its input) has no pairs. Later passes run the network's own
    code, and `curricula.victim.equivalence` detects a wrong trace.

    Args:
        network: in eval mode.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        >>> list(foldable_pairs(network.eval()))
        [('0', '1')]
    """
    if not any(type(layer) is nn.BatchNorm2d for layer in network.modules()):
        return  # tracing takes most of the time of a frozen copy
    try:
        graph = torch.fx.Tracer().trace(
            copy_with_tensors(network, lambda tensor: tensor.to("meta"))
        )
    except Exception:  # the network's code may do anything with a tensor that has no values
        return
    num_calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    # A layer whose tensors the code also reads directly must keep them.
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
            and all(num_calls[name] == 1 for name in names)
            and _can_fold(network.get_submodule(names[0]), network.get_submodule(names[1]))
        ):
            yield names


def _can_fold(before: nn.Module, after: nn.Module) -> bool:
    """Return whether two layers are a plain convolution and a plain batch norm, without hooks."""
    return (
        type(before) is nn.Conv2d
        and type(after) is nn.BatchNorm2d
        and after.running_mean is not None
        and after.running_mean.dtype == before.weight.dtype
        and has_no_hooks(before)
        and has_no_hooks(after)
    )
