"""Sums over the rows of a matrix, two for each column at once, by a table of what is summed.

Threads side by side take columns side by side, so that a warp reads 32 neighbours; below each other they take every
so manyth row, and a tree adds up what they have. Many rows are cut into parts for blocks of their own, whose sums a
second launch adds up: the same order every time, so the same result.
"""

import functools

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.block import tree
from minidl.kernels.cuda.kernel_launch import THREADS, WARP, block_for, launch
from minidl.kernels.cuda.places import column
from minidl.kernels.cuda.scalars import scalar
from minidl.kernels.cuda.target import cuda, unsigned

PART = 64  # rows that a thread adds up one after the other
PARTS = 1 << 15  # at most, since a grid has at most 65,535 blocks along y: a thread adds up more, if need be


def terms(F):
    """What is summed, from elements a and b of a matrix each and the numbers mean and scale."""
    return {
        "both": lambda a, b, mean, scale: (a, b),
        "grads": lambda a, b, mean, scale: (a, a * (b - mean) * scale),  # of grad and x: of bias and weight
        "spread": lambda a, b, mean, scale: (a, b + (a - mean) * (a - mean)),  # of means and variances
    }


@functools.cache
def column_sums_kernel(name: str, by_row: bool, threads: int, F: type):
    term, added, zero = cuda.jit(device=True)(terms(F)[name]), tree(scalar("add", F)), F(0)

    @cuda.jit
    def column_sums(first_sums, second_sums, a, b, means, scales, rows, width, part):
        """blockIdx.x goes along columns, blockIdx.y along parts of `part` rows. means, scales: of rows or columns."""
        shared = cuda.shared.array(threads, F)
        rows, width, part, this = unsigned(rows), unsigned(width), unsigned(part), column()
        lane, lanes, step = unsigned(cuda.threadIdx.y), unsigned(cuda.blockDim.y), unsigned(cuda.blockDim.x)
        row = unsigned(cuda.blockIdx.y * part + lane)
        end = min(unsigned(cuda.blockIdx.y * part + part), rows)
        first, second = zero, zero
        if this < width:
            while row < end:
                k = row if by_row else this
                at = unsigned(row * width + this)
                one, other = term(a[at], b[at], means[k], scales[k])
                first += one
                second += other
                row = unsigned(row + lanes)
        place = unsigned(lane * step + cuda.threadIdx.x)
        first = added(shared, first, place, lane, lanes, step)
        second = added(shared, second, place, lane, lanes, step)
        if lane == 0 and this < width:
            first_sums[unsigned(cuda.blockIdx.y * width + this)] = first
            second_sums[unsigned(cuda.blockIdx.y * width + this)] = second

    return column_sums


def column_sums(name: str, a, b, means, scales, by_row: bool = False):
    """The two sums over the rows of a and b (rows, width) that `name` says: (width,) each.

    means, scales: (width,), or (rows,) where `by_row`.
    """
    (rows, width), F = a.shape, a.dtype.type
    x, lanes = block_for(min(width, WARP))
    part = max(PART * lanes, -(-rows // PARTS))
    parts = max(1, -(-rows // part))
    sums = [CudaArray((parts, width), a.dtype) for _ in range(2)]
    if width:
        kernel = column_sums_kernel(name, by_row, THREADS, F)
        launch(kernel, (-(-width // x), parts), (x, lanes), *sums, a, b, means, scales, rows, width, part)
    if parts > 1:
        return column_sums("both", *sums, *sums)
    return tuple(s.view((width,), None) for s in sums)
