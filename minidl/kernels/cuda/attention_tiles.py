"""What the kernels of attention are made of: tiles of matrices in shared memory, and their products.

Most tiles are transposed: neighbours are the entries of neighbouring rows at one depth. A
thread (lane, line) holds some rows and columns of a product in registers, in groups of up to 4 that lie side by side,
so that one instruction reads 4 numbers, and each number that is read serves several products. PAD keeps rows apart in
the banks of shared memory, by a multiple of what one instruction reads.
"""

import functools

from minidl.kernels import algorithms, memory_order
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.elementwise import broadcast_strides
from minidl.kernels.cuda.kernel_launch import padded
from minidl.kernels.cuda.target import EMULATED, cuda, unsigned

PAD = 4
WIDEST_IN_TILES = algorithms.WIDEST_IN_TILES["cuda"]  # bytes of a row: heads of 128 numbers of float32


def forward_tile(row: int) -> tuple[int, int, int, int]:
    """Queries and keys of a tile, lines and lanes of threads: powers of 2. row: bytes of one in shared memory.

    Larger ones reuse more of what they read; what a block needs must fit into 48 KiB.
    """
    return (8, 8, 4, 4) if EMULATED else (64, 32, 16, 8) if row <= WIDEST_IN_TILES // 2 else (32, 32, 16, 8)


def backward_tile(row: int) -> tuple[int, int, int, int]:
    """Rows and columns of a tile, lines and lanes of threads."""
    return (8, 8, 4, 4) if EMULATED else (32, 32, 8, 8) if row <= WIDEST_IN_TILES // 2 else (16, 16, 8, 8)


def padded_width(width: int) -> int:
    """The width for which kernels are compiled, a power of 2: the rest of a tile is 0."""
    return max(8, 1 << (width - 1).bit_length()) if width else 8


# In kernels


@functools.cache
def loading(F: type, rows: int, width: int, threads: int, transposed: bool):
    """A device function that copies rows start, start + 1, ... of a matrix to a tile, and zeros beyond its end.

    Threads go along the rows of the matrix. transposed: the tile has its columns as rows.
    """
    row_apart, column_apart = (1, rows + PAD) if transposed else (width + PAD, 1)
    zero = F(0)

    @cuda.jit(device=True)
    def load(tile, x, first, row_step, step, start, rows_of_x, width_of_x, thread):
        row_step, step = unsigned(row_step), unsigned(step)
        i = unsigned(thread)
        while i < rows * width:
            row, column = i // width, unsigned(i % width)
            of_x = unsigned(start + row)
            value = zero
            if of_x < rows_of_x and column < width_of_x:
                value = x[unsigned(first + of_x * row_step + column * step)]
            tile[unsigned(row * row_apart + column * column_apart)] = value
            i = unsigned(i + threads)

    return load


@cuda.jit(device=True)
def entry(k, group, thread, threads):
    """Which row or column is the k-th of this thread, of `threads` that hold them in groups of `group`."""
    return k // group * (group * threads) + thread * group + k % group


@functools.cache
def product(F: type, shape: tuple[int, int, int], threads: tuple[int, int], a_apart: int, b_apart: int, b_next: int):
    """A device function: to `sums`, the entries of a thread, is added what they are of A B.

    shape: rows and columns of a thread, and the depth. threads: lines and lanes. Rows of A are side by side in memory,
    at depths `a_apart`; columns of B `b_next` apart, at depths `b_apart`. Of each step along the depth, rows + columns
    numbers are read for rows * columns products. The depth is a power of 2 and `&` says so to the compiler: an index
    that may be negative would cost it more than the product, since Python counts it from the end.
    """
    (rows, columns, depth), (lines, lanes) = shape, threads
    a_group, b_group = group(rows), group(columns) if b_next == 1 else 1

    @cuda.jit(device=True)
    def add_product(sums, a, b, line, lane):
        a_numbers, b_numbers = cuda.local.array(rows, F), cuda.local.array(columns, F)
        for step in range(depth):
            d = step & (depth - 1)
            for i in range(rows):
                a_numbers[i] = a[d * a_apart + i // a_group * (a_group * lines) + line * a_group + i % a_group]
            for j in range(columns):
                column = j // b_group * (b_group * lanes) + lane * b_group + j % b_group
                b_numbers[j] = b[d * b_apart + column * b_next]
            for i in range(rows):
                for j in range(columns):
                    sums[i * columns + j] += a_numbers[i] * b_numbers[j]

    return add_product


def group(entries: int) -> int:
    """How many of a thread's entries lie side by side."""
    return min(4, entries)


# Arguments of kernels


def new_like(x, shape):
    """A new array of `shape`, in the order of memory of x if it is of that shape."""
    return CudaArray(shape, x.dtype, strides=memory_order.like(x.shape, x.strides) if x.shape == shape else None)


def leading(x, heads):
    """How far the matrices of x lie apart, stretched to `heads`, and where the first begins: see `place`."""
    strides = broadcast_strides(x, (*heads, *x.shape[-2:]))
    return (*padded(strides[:-2], 0), x.first)


def steps_of(*arrays):
    """How far elements lie apart from row to row and along a row, of each array."""
    return tuple(step for x in arrays for step in x.strides[-2:])
