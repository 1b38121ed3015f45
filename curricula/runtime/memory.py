"""The memory of this machine, and what does not fit into it."""

import contextlib
import os
from pathlib import Path

from curricula.errors import UserError, amount

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # a number of bytes, or "max"


def total_bytes() -> int | None:
    """Return the bytes of memory that this process may use: the machine's or its container's; None
    if the system does not report them."""
    if not hasattr(os, "sysconf"):  # Windows
        return None
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        return min(machine, int(CONTAINER_LIMIT.read_text(encoding="ascii")))
    return machine


def check_fits(what: str, size: int, *, fix: str) -> None:
    """Check that something fits into this process's memory, before it is allocated.

    Args:
        what: what takes the memory, for the message.
        size: its bytes.
        fix: what to do instead, for the message.

    Raises:
        UserError: it does not fit.
    """
    total = total_bytes()
    if total is not None and size > total:
        raise UserError(
            f"{what} would take {_gibibytes(size)} of memory; this machine has "
            f"{_gibibytes(total)}: {fix}"
        )


def _gibibytes(size: int) -> str:
    return f"{amount(-(-size // 2**30))} GiB"
