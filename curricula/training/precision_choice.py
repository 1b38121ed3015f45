"""Decide the precision of a training: bf16 only where its gradients are right."""

from typing import Any

import torch
from torch import Tensor, nn

from curricula.errors import UserError
from curricula.runtime.devices import resolve_precision
from curricula.runtime.precision import Precision, weight_dtype
from curricula.victim.copies import copied, restored
from curricula.victim.outputs import logits_of


def choose_precision(
    choice: str, network: nn.Module, x_NCHW: Tensor, device: torch.device
) -> tuple[Precision, tuple[str, ...]]:
    """Return the precision of a training, and lines that tell the user why it is not bf16.

    On a CPU, oneDNN 3.13 leaves parts of the bf16 gradient of a convolution's weights unwritten if
    the stride is larger than the width of the input: they hold NaN or whatever was in memory.

    Args:
        choice: ``auto``, ``float32`` or ``bf16``.
        network: the network that is trained. It is not changed.
        x_NCHW: images of the training, on the device.
        device: where it is trained.

    Raises:
        UserError: bf16 is requested, and the network has such a convolution.
    """
    precision = resolve_precision(choice, device)
    if precision == "float32" or device.type != "cpu":
        return precision, ()
    found = _wide_strides(network, x_NCHW)
    if not found:
        return "bf16", ()
    stride, width = found[0]
    problem = (
        f"a convolution has a stride of {stride} on an input that is {width} wide, for which bf16 "
        "on the CPU gives wrong gradients"
    )
    if choice == "bf16":
        raise UserError(f"precision bf16: {problem}; set precision (--precision) to float32")
    return "float32", (f"precision: float32, since {problem}",)


def _wide_strides(network: nn.Module, x_NCHW: Tensor) -> list[tuple[int, int]]:
    """Return the pairs (stride, width of the input), in pixels, of a network's convolutions that
    stride over their whole input. They are read from the graph of one pass of a copy."""
    scratch = copied(network).to(x_NCHW.device).train()
    with torch.random.fork_rng(devices=[]), restored(network), torch.enable_grad():
        logits_NK = logits_of(scratch(x_NCHW.to(weight_dtype(scratch) or x_NCHW.dtype, copy=True)))
    found: list[tuple[int, int]] = []
    nodes, seen = [logits_NK.grad_fn], {None}
    while nodes:
        node: Any = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        if node.name().startswith("ConvolutionBackward") and not node._saved_transposed:
            stride, width = node._saved_stride[-1], node._saved_input.shape[-1]
            if stride > width:
                found.append((stride, width))
    return found
