"""Keeping freed memory in the process, which NumPy's large temporaries need to be fast."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Tell glibc's malloc to hand large blocks out again instead of returning them to the system; no-op elsewhere.

    Otherwise every large temporary is mapped, its pages are faulted in one by one, and it is unmapped again.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
