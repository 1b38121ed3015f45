"""Memory that is freed and asked for again, pass after pass."""

import ctypes
import sys

# From malloc.h of the GNU C library.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, rather than give it back and fetch it anew.

    Each pass of a network on a CPU allocates all its maps and frees them again. The GNU C library
    gives large blocks back to the system, which hands out new ones page by page and cleared: up
    to a fifth of the time of a small network's pass. A setting of the whole process, for which the
    `curricula` program calls this; a program of your own may, too.

    Returns:
        Whether the C library took it; others than GNU's have no such setting.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trimming = mallopt(M_TRIM_THRESHOLD, LARGEST_INT) == 1
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) == 1 and trimming)
