"""Keep freed memory, because every pass of a network allocates it again."""

import ctypes
import sys

# Parameters of mallopt, from malloc.h of the GNU C library.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
MAX_INT = 2**31 - 1  # bytes; the largest argument of mallopt


def keep_freed_memory() -> bool:
    """Let this process keep freed memory instead of returning it to the system, and return whether
    the system supports this.

    Each pass of a network on a CPU allocates all its feature maps and frees them again. The GNU C
    library returns large blocks to the system, which clears new ones page by page: up to a fifth of
    the time of a small network's pass. This is a setting of the whole process. The `curricula`
    program sets it; other programs may call this function too.

    Returns:
        Whether the C library accepted the setting; only the GNU C library has it.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trimming = mallopt(M_TRIM_THRESHOLD, MAX_INT) == 1
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) == 1 and trimming)
