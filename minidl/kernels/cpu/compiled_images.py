"""The turning of images.py, compiled by Numba for float32."""

import numpy as np

from minidl.kernels.cpu.compiling import njit
from minidl.kernels.cpu.lanes import LANES, load, store


@njit()
def swap(x, out):
    """x (n, rows, columns) -> out (n, columns, rows), by blocks of 16 x 16.

    Rows a power of two bytes apart fight for the same lines of the cache, so a block is first copied into memory of its
    own; what is left at the edges is not.
    """
    n, rows, columns = x.shape
    whole_rows, whole_columns = rows // LANES * LANES, columns // LANES * LANES
    block = np.empty((LANES, LANES), np.float32)
    for b in range(n):
        for top in range(0, whole_rows, LANES):
            for left in range(0, whole_columns, LANES):
                for i in range(LANES):
                    store(block, i * LANES, load(x, (b * rows + top + i) * columns + left))
                for j in range(LANES):
                    row = out[b, left + j, top : top + LANES]
                    for i in range(LANES):
                        row[i] = block[i, j]
        for i in range(rows):
            for j in range(whole_columns if i < whole_rows else 0, columns):
                out[b, j, i] = x[b, i, j]
