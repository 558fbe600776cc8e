"""Memory that the C library keeps rather than hands back."""

import ctypes
import os

KEEP_VARIABLE = 'MMSEG_CRACKSSM_KEEP_MEMORY'

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1
# Older releases refuse more.
_LARGEST_FOR_OLD_RELEASES = 32 * 2**20
# The user's own settings go first.
_SETTINGS_OF_GLIBC = (
    'GLIBC_TUNABLES',
    'MALLOC_MMAP_THRESHOLD_',
    'MALLOC_TRIM_THRESHOLD_',
)


def keep_freed_memory() -> bool:
    """Let this process keep the memory that tensors on the CPU give up.

    By default glibc gives a large block back to the system as soon as it is
    free. A network asks for the next one at once, and for each page of it the
    system then has to find and clear memory again, which can take a quarter
    of the time of inference. The peak of memory is the same; what is free
    within the process is not free for others until it ends.

    ``MMSEG_CRACKSSM_KEEP_MEMORY=0``, or a setting of glibc's own such as
    ``MALLOC_TRIM_THRESHOLD_``, keeps things as they are.

    Returns:
        Whether it is so now; False without glibc.
    """
    if os.environ.get(KEEP_VARIABLE) == '0' or any(
        name in os.environ for name in _SETTINGS_OF_GLIBC
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(
        (
            mallopt(_M_MMAP_THRESHOLD, _LARGEST)
            or mallopt(_M_MMAP_THRESHOLD, _LARGEST_FOR_OLD_RELEASES)
        )
        and mallopt(_M_TRIM_THRESHOLD, _LARGEST)
    )
