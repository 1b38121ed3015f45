"""Wall times on a device."""

import time
from collections.abc import Callable

import torch


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one call in seconds, including its work on the device.

    Example:
        >>> seconds(lambda: torch.ones(3), torch.device("cpu")) >= 0
        True
    """
    _synchronise(device)
    start = time.perf_counter()
    run()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
