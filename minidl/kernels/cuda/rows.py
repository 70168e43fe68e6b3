"""Rows of a matrix, each held by neighbouring threads of one block, which find its sum or largest element together.

The threads with one `threadIdx.y` hold a row: thread x its elements x, x + blockDim.x, x + 2 blockDim.x and so on, so
that neighbours read neighbours. Short rows share a block: it begins with `first_row`, and goes on by `rows_at_once`. A
row of up to 8 elements a thread stays in registers: it comes from memory once.
"""

import functools
import math
from collections.abc import Callable

from minidl.kernels.cuda.kernel_launch import BLOCKS, THREADS, WARP, block_for
from minidl.kernels.cuda.scalars import scalar
from minidl.kernels.cuda.target import cuda, unsigned

DISTANCES = (1, 2, 4, 8, 16)  # between threads of a warp that exchange numbers
ALL = 0xFFFFFFFF  # the threads of a warp, as bits
KEPT = (1, 2, 4, 8)  # elements in registers for which kernels are compiled
LARGEST = 2 * THREADS  # block
BOUNDS = LARGEST, 1024 // LARGEST  # so many of them find room on a processor: a thread has at most 64 registers


def blocks_of_rows(rows: int, width: int) -> tuple[int, tuple[int, int], int]:
    """How many blocks go over the rows, of which shape, and how many elements a thread keeps: 0 if too many."""
    block = block_for(width, THREADS if width <= KEPT[-1] * THREADS else LARGEST)
    each = -(-width // block[0])
    kept = next((n for n in KEPT if each <= n), 0)
    return max(1, min(BLOCKS, -(-rows // block[1]))), block, kept


@cuda.jit(device=True)
def first_row():
    """The first of the rows that this block begins with, one for each threadIdx.y."""
    return unsigned(cuda.blockIdx.x * cuda.blockDim.y)


@cuda.jit(device=True)
def rows_at_once():
    """How many rows all blocks hold."""
    return unsigned(cuda.gridDim.x * cuda.blockDim.y)


@functools.cache
def across(name: str, F: type) -> Callable:
    """A device function: one number of each thread of a row -> all combined ("add", "maximum"), in all of them.

    Threads of a warp exchange numbers with the thread whose number differs in one bit, then two bits further and so
    on: after 5 exchanges each has the total (a butterfly). Warps leave theirs in shared memory. All threads of the
    block must call it, since they wait for each other.
    """
    combine = scalar(name, F)

    @cuda.jit(device=True)
    def combined(number):
        column, columns = unsigned(cuda.threadIdx.x), unsigned(cuda.blockDim.x)
        for distance in DISTANCES:
            if distance < columns:
                number = combine(number, cuda.shfl_xor_sync(ALL, number, distance))
        if columns > WARP:
            of_warps = cuda.shared.array(WARP, F)
            warp = unsigned(cuda.threadIdx.y * columns // WARP)
            end = unsigned(warp + columns // WARP)
            if column % WARP == 0:
                of_warps[unsigned(warp + column // WARP)] = number
            cuda.syncthreads()
            number = of_warps[warp]
            warp = unsigned(warp + 1)
            while warp < end:
                number = combine(number, of_warps[warp])
                warp = unsigned(warp + 1)
            cuda.syncthreads()  # before the next call writes there
        return number

    return combined


@functools.cache
def online(F: type) -> Callable:
    """A device function: (top, total) of a row so far, and its next number -> those with it.

    top: the largest; total: the sum of exp(number - top). What was summed so far shrinks when a larger number comes
    (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", algorithm 3).
    """
    one, lowest = F(1), F(-math.inf)

    @cuda.jit(device=True)
    def with_next(top, total, number):
        if number > top:
            return number, total * math.exp(top - number) + one
        if number == lowest:  # also where `top` is: the difference would be NaN
            return top, total
        return top, total + math.exp(number - top)

    return with_next
