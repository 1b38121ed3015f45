"""Devices by name, and the precision that suits them."""

import torch

from curricula.errors import UserError
from curricula.runtime.precision import Precision
from curricula.runtime.processes import local_device


def resolve_device(name: str) -> torch.device:
    """Return the torch device with this name; ``auto`` means the first accelerator, else the CPU.

    Of several processes on one machine (`curricula.runtime.processes`), each gets a different GPU.

    Raises:
        UserError: this machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return local_device(accelerator) if accelerator is not None else torch.device("cpu")
    available = ["auto", "cpu"]
    if torch.accelerator.is_available():
        kind = str(torch.accelerator.current_accelerator())
        available += [kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count()))]
    if name not in available:
        raise UserError(f"device {name!r} is not available; choose from {', '.join(available)}")
    return local_device(torch.device(name))


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Return the precision with this name; ``auto`` means bf16 where the device supports it
    natively, else float32.

    Example:
        >>> resolve_precision("bf16", torch.device("cpu"))
        'bf16'
    """
    if name == "float32" or (name == "auto" and not _native_bf16(device)):
        return "float32"
    return "bf16"


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # torch has no public function for this; where a probe is missing, float32 is safe.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return False
