"""Large arrays worked through in blocks that stay in the cache: memory is read once, not once for each NumPy call."""

import numpy as np

from minidl.kernels.cpu.fast.threads import split, split_sum

BLOCK = 1 << 14  # elements: several float32 blocks fit in a cache of 1 MiB
ONE_BLOCK = 1 << 18  # elements of the largest array that is alone in the cache: 1 MiB of float32


def blocks(rows: slice, width: int = 1, block: int = BLOCK):
    """Slices that cover `rows`, of `width` elements each, with `block` elements or one row each."""
    step = max(1, block // max(1, width))
    return (slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step))


def in_blocks(function, x, *others):
    """function(x, *others), arrays of one shape, element by element: a contiguous array shaped like x."""
    flat = [np.ravel(array) for array in (x, *others)]
    y = np.empty(x.size, x.dtype)
    for part in blocks(slice(0, y.size)):
        y[part] = function(*(array[part] for array in flat))
    return y.reshape(x.shape)


def over_images(images: int, elements: int, function) -> None:
    """Call function(part) with slices of images that make a block of `elements` each, cut over threads."""

    def work(rows):
        for part in blocks(rows, elements, ONE_BLOCK):
            function(part)

    split(images, work)


def sum_over_images(images: int, elements: int, function):
    """The sum of the arrays that function(part) gives; parts as `over_images` has them, one at least."""

    def work(rows):
        first, *others = blocks(rows, elements, ONE_BLOCK) if images else (rows,)
        total = function(first)
        for part in others:
            total += function(part)
        return total

    return split_sum(images, work)
