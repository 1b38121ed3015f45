"""Modes of torch that the caller may have set, and that the arithmetic of attacks must not see."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

from curricula.runtime.default_device import cpu_by_default

T = TypeVar("T")


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave torch's inference mode inside the block, with gradients disabled as in that mode."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Use torch's default dtype ``dtype`` inside the block."""
    before = torch.get_default_dtype()
    if before == dtype:
        yield
        return
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def ordinary_mode(device: torch.device) -> Iterator[None]:
    """Compute in float32 inside the block: without autocast on the device, outside of inference
    mode, and with float32 as the default dtype and the CPU as the default device."""
    off = (
        torch.autocast(device.type, enabled=False)
        if torch.is_autocast_enabled(device.type)
        else nullcontext()
    )
    with outside_inference_mode(), off, default_dtype(torch.float32), cpu_by_default():
        yield


@contextmanager
def training_mode() -> Iterator[None]:
    """Train in the modes that torch starts in, whatever the caller has set: with gradients, in
    float32, without autocast."""
    with ExitStack() as modes:
        for device in ("cpu", "cuda"):
            modes.enter_context(ordinary_mode(torch.device(device)))
        modes.enter_context(torch.enable_grad())
        yield


def as_ordinary(value: T) -> T:
    """Return a tensor of inference mode as an ordinary copy, which gradients can use; any other
    value unchanged. Call it outside of inference mode."""
    if isinstance(value, Tensor) and value.is_inference():
        return value.clone()  # type: ignore[return-value]
    return value
