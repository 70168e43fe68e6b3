"""Memory that was freed is kept for the next array.

glibc hands a large array's memory back to the system when the array is freed, and the next array faults its pages in
anew, one by one: a step of a transformer takes up to 1.7 times as long. So arrays below 32 MiB, the most that glibc
allows, come from the heap, and the heap is kept.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 1 << 30  # bytes of free memory at the end of the heap from which it is handed back
FROM_HEAP = 1 << 25  # bytes of the largest array that comes from the heap


def keep_freed_memory() -> None:
    """Ask glibc to keep memory; without glibc nothing happens."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, FROM_HEAP)
            mallopt(M_TRIM_THRESHOLD, KEPT)
