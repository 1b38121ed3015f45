"""Precision of a network's arithmetic."""

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bf16"]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context manager in which a network on the device computes in float32 or bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class AtPrecision(nn.Module):
    """Run a network in float32 or bf16, and return its logits in float32."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    def forward(self, x_NCHW: Tensor) -> Tensor:
        with autocast(x_NCHW.device, self.precision):
            logits: Tensor = self.network(x_NCHW)
        return logits.float()


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
