"""Images turned by compiled code, for float32, and cut over threads by image."""

import numpy as np

from minidl.kernels.cpu.fast.compiling import njit
from minidl.kernels.cpu.fast.threads import split, thread_rows
from minidl.kernels.cpu.fast.vectors import WIDTH, load, store


def channels_last(x):
    """Contiguous (batch, channels, ...) -> contiguous (batch, ..., channels)."""
    out = np.empty((x.shape[0], *x.shape[2:], x.shape[1]), x.dtype)
    first, last = x.reshape(*x.shape[:2], -1), out.reshape(x.shape[0], -1, x.shape[1])
    split(len(x), lambda part: swap(first[part], last[part]))
    return out


def by_image(images, function):
    """Call `function` with slices of the images, on several threads if they are large."""
    split(len(images), function, thread_rows(images[0].size))


@njit()
def swap(x, out):
    """x (n, rows, columns) -> out (n, columns, rows), by blocks of 16 x 16.

    Rows a power of two bytes apart fight for the same lines of the cache, so a block is first copied into memory of its
    own; what is left at the edges is not.
    """
    n, rows, columns = x.shape
    whole_rows, whole_columns = rows // WIDTH * WIDTH, columns // WIDTH * WIDTH
    block = np.empty((WIDTH, WIDTH), np.float32)
    for b in range(n):
        for top in range(0, whole_rows, WIDTH):
            for left in range(0, whole_columns, WIDTH):
                for i in range(WIDTH):
                    store(block, i * WIDTH, load(x, (b * rows + top + i) * columns + left))
                for j in range(WIDTH):
                    row = out[b, left + j, top : top + WIDTH]
                    for i in range(WIDTH):
                        row[i] = block[i, j]
        for i in range(rows):
            for j in range(whole_columns if i < whole_rows else 0, columns):
                out[b, j, i] = x[b, i, j]
