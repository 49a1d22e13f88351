"""The memory of a process: what one training step frees, the next one needs again."""

import ctypes
import sys

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Keep what is freed for the next tensors, for the rest of this process.

    By default, glibc gives the pages of large tensors back to the system, which has to map and clear new ones in each
    step: on cores that took from a tenth of a step (fp32) to a third of it (bf16). The process keeps the size of its
    peak. Where there is no glibc, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
