"""Precision of a network's arithmetic."""

from contextlib import AbstractContextManager
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


def no_tf32() -> AbstractContextManager[None]:
    """Return a context manager in which a GPU computes convolutions in float32, not in TF32."""
    cudnn = torch.backends.cudnn
    context: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    return context
