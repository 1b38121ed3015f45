"""Precision of a network's arithmetic."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bf16"]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context manager in which a network on the device computes in float32 or bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def weight_dtype(network: nn.Module) -> torch.dtype | None:
    """Return the floating-point dtype of all weights of a network; None if they have several or it
    has none.

    Example:
        >>> weight_dtype(nn.Linear(2, 3).half())
        torch.float16
    """
    found = {weight.dtype for weight in network.parameters() if weight.is_floating_point()}
    return found.pop() if len(found) == 1 else None


@contextmanager
def no_tf32() -> Iterator[None]:
    """Compute convolutions and matrix products in float32 inside the block, not in TF32, whatever
    precision of products the caller has set."""
    cudnn = torch.backends.cudnn
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller has set each backend's precision, by the newer interface
        before = "highest"
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    ):
        if before == "highest":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
