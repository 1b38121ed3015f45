"""Leave the default device of torch that the caller has set. Nothing here imports torch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cpu_by_default() -> Iterator[None]:
    """Make tensors on the CPU inside the block unless a device is named, whatever default device
    the caller has set."""
    torch = sys.modules.get("torch")
    if torch is None or torch.get_default_device().type == "cpu":
        yield  # without a mode, through which each call of torch would pass
        return
    with torch.device("cpu"):
        yield
