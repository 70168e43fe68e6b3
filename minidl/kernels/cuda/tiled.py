"""A product of matrices by tiles: one kernel, whatever its operands are, for matrices and for convolutions.

result[i, j] = sum over k of left[i, k] * right[k, j], for each matrix of a batch. What an element of an operand is,
its functions say: those of a matrix read memory, those of a convolution's windows find a place in an image. The lines
of `left` are its rows and those of `right` its columns; both run along the depth k.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.device_memory import device
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over, padded
from minidl.kernels.cuda.places import column, columns, place
from minidl.kernels.cuda.scalars import scalar
from minidl.kernels.cuda.target import cuda, unsigned


class Tile(NamedTuple):
    """A block of side * side threads computes (side * each) ** 2 results, each thread `each` ** 2 of them.

    deep: how much of the depth lies in shared memory at a time. rate: results per second beside the best tile, while
    all processors are busy: a guess by how often a value is used once it is in a register.
    """

    side: int
    each: int
    deep: int
    rate: float

    @property
    def width(self) -> int:
        return self.side * self.each


LARGE, MEDIUM, SMALL = Tile(16, 8, 8, 1.0), Tile(16, 4, 8, 0.7), Tile(8, 2, 8, 0.3)
SHORTEST_PART = 256  # of the depth: less is not worth a block of its own


class Operand(NamedTuple):
    """An operand or the result: `array`, read by functions(F) -> (start, line, deep, read), which are told `where`.

    start(where, matrix) is the place of a matrix of the batch. line(where, i) and deep(where, k) give (place, y, x)
    each, and read(array, where, place, y, x) the element at the sum of all. The result has its rows as lines and its
    columns as depth, and elements at the places alone. deep_next: neighbours in memory are neighbours along the depth.
    """

    array: CudaArray
    functions: Callable
    where: tuple
    deep_next: bool = False


@functools.cache
def matrix(F):
    """The functions of a batch of matrices; where: (line step, depth step, shape of the batch, its steps)."""

    @cuda.jit(device=True)
    def start(where, matrix):
        return place(matrix, where[2], where[3])

    @cuda.jit(device=True)
    def line(where, i):
        return unsigned(i * unsigned(where[0])), 0, 0

    @cuda.jit(device=True)
    def deep(where, k):
        return unsigned(k * unsigned(where[1])), 0, 0

    @cuda.jit(device=True)
    def read(array, where, place, y, x):
        return array[place]

    return start, line, deep, read


def matrices(x: CudaArray, line_step: int, deep_step: int, batch: tuple[int, ...], steps: tuple[int, ...]) -> Operand:
    """x as a batch of matrices, which lie `steps` apart in a batch of the shape `batch`."""
    where = line_step, deep_step, padded(batch, 1), (*padded(steps, 0), x.first)
    return Operand(x, matrix, where, deep_step == 1)


# The kernels


@functools.cache
def tiled(F: type, tile: Tile, left: Callable, right: Callable, result: Callable, biased: bool, activation: str):
    """The kernel for numbers of type F and operands with these functions.

    A block takes a tile of the result. Step by step along the depth, its threads load `deep` of the lines of both
    operands into shared memory, neighbours what lies side by side in memory; each number there is then read by `side`
    threads. A thread reads `each` numbers of both operands into registers, and multiplies all pairs: of 64 products,
    16 loads (Volkov and Demmel 2008, "Benchmarking GPUs to Tune Dense Linear Algebra"). While it multiplies, what it
    loads for the next step is on its way. Where a warp reads neighbours along the depth, the PAD spreads them over the
    banks of the shared memory, in which they would all lie in one.
    """
    SIDE, EACH, DEEP, _ = tile
    WIDTH, THREADS, PAD = tile.width, SIDE * SIDE, 4
    APART = THREADS // DEEP  # between the lines that one thread loads
    LOADS = WIDTH // APART
    TILE = DEEP, WIDTH + PAD
    TOTALS = EACH, EACH
    V = min(4, EACH)  # numbers that are read from shared memory at once
    # Blocks on a processor, which has 65,536 registers. Where zeros are between the rows of images, 128 are too few
    BOUNDS = THREADS, 1 if right.__name__ == "spread_windows" else 2
    zero = F(0)
    left_start, left_line, left_deep, left_read = left(F)
    right_start, right_line, right_deep, right_read = right(F)
    result_start, row_of, column_of, _ = result(F)
    fetch_left = fetch(F, LOADS, APART, left_deep, left_read)
    fetch_right = fetch(F, LOADS, APART, right_deep, right_read)
    finish = scalar(activation, F)

    @cuda.jit(device=True, forceinline=True)
    def multiply_at(d, tile_a, tile_b, some_a, some_b, total, row, column):
        """All pairs of the lines of a thread at the depth d."""
        for r in range(EACH):
            some_a[r] = tile_a[d, row + r // V * (V * SIDE) + r % V]
            some_b[r] = tile_b[d, column + r // V * (V * SIDE) + r % V]
        for r in range(EACH):
            for c in range(EACH):
                total[r, c] += some_a[r] * some_b[c]

    @cuda.jit(device=True, forceinline=True)
    def store(c, out, total, bias, begin, of_out, of_bias, i, j, m, n):
        """Column c of what a thread has computed."""
        column = unsigned(j + c // V * (V * SIDE) + c % V)
        if column < n:
            at = unsigned(begin + column_of(of_out, column)[0])
            for r in range(EACH):
                row = unsigned(i + r // V * (V * SIDE) + r % V)
                if row < m:
                    value = total[r, c]
                    if biased:
                        value += bias[unsigned(of_bias[0] + row * of_bias[1] + column * of_bias[2])]
                    out[unsigned(at + row_of(of_out, row)[0])] = finish(value)

    multiply_all, store_columns = unrolled(DEEP, multiply_at), unrolled(EACH, store)

    @cuda.jit(launch_bounds=BOUNDS)
    def tiled_product(
        out, a, b, bias, m, n, k, parts, part, of_out, of_a, of_b, of_bias, a_deep_next, b_deep_next
    ):  # fmt: skip
        tile_a, tile_b = cuda.shared.array(TILE, F, alignment=16), cuda.shared.array(TILE, F, alignment=16)
        total = cuda.local.array(TOTALS, F)
        some_a, some_b = cuda.local.array(EACH, F), cuda.local.array(EACH, F)
        next_a, next_b = cuda.local.array(LOADS, F), cuda.local.array(LOADS, F)
        place_a, place_b = cuda.local.array(LOADS, unsigned), cuda.local.array(LOADS, unsigned)
        y_a, x_a = cuda.local.array(LOADS, unsigned), cuda.local.array(LOADS, unsigned)
        y_b, x_b = cuda.local.array(LOADS, unsigned), cuda.local.array(LOADS, unsigned)

        m, n, k, parts, part = unsigned(m), unsigned(n), unsigned(k), unsigned(parts), unsigned(part)
        across, down = unsigned((n + WIDTH - 1) // WIDTH), unsigned((m + WIDTH - 1) // WIDTH)
        block = unsigned(cuda.blockIdx.x)
        thread = cuda.threadIdx.x & (THREADS - 1)  # the same; but the compiler sees that no index is negative
        line_of_blocks, left_edge = unsigned(block // across), unsigned(block % across * WIDTH)
        matrix, top = unsigned(line_of_blocks // down), unsigned(line_of_blocks % down * WIDTH)
        operands = unsigned(matrix // parts)  # of which this is one part of the depth
        step = unsigned(matrix % parts * part)
        stop = min(unsigned(step + part), k)

        line_a, deep_a = thread % APART, thread // APART
        line_b, deep_b = line_a, deep_a
        if a_deep_next:
            line_a, deep_a = thread // DEEP, thread % DEEP
        if b_deep_next:
            line_b, deep_b = thread // DEEP, thread % DEEP
        begin_a, begin_b = left_start(of_a, operands), right_start(of_b, operands)
        for s in range(LOADS):
            place, y_a[s], x_a[s] = left_line(of_a, unsigned(top + line_a + s * APART))
            place_a[s] = unsigned(begin_a + place)
            place, y_b[s], x_b[s] = right_line(of_b, unsigned(left_edge + line_b + s * APART))
            place_b[s] = unsigned(begin_b + place)
        first_a, first_b = unsigned(top + line_a), unsigned(left_edge + line_b)
        fetch_left(next_a, a, of_a, place_a, y_a, x_a, first_a, m, unsigned(step + deep_a), stop)
        fetch_right(next_b, b, of_b, place_b, y_b, x_b, first_b, n, unsigned(step + deep_b), stop)

        row, column = thread // SIDE, thread % SIDE
        has_results = top + row * V < m and left_edge + column * V < n  # where the tile sticks out, threads only load
        for r in range(EACH):
            for c in range(EACH):
                total[r, c] = zero
        while step < stop:
            for s in range(LOADS):
                tile_a[deep_a, line_a + s * APART] = next_a[s]
                tile_b[deep_b, line_b + s * APART] = next_b[s]
            cuda.syncthreads()
            step = unsigned(step + DEEP)
            fetch_left(next_a, a, of_a, place_a, y_a, x_a, first_a, m, unsigned(step + deep_a), stop)
            fetch_right(next_b, b, of_b, place_b, y_b, x_b, first_b, n, unsigned(step + deep_b), stop)
            if has_results:
                multiply_all(tile_a, tile_b, some_a, some_b, total, row * V, column * V)
            cuda.syncthreads()

        biases = unsigned(operands * of_bias[0] + of_bias[3]), unsigned(of_bias[1]), unsigned(of_bias[2])
        begin, i, j = result_start(of_out, matrix), unsigned(top + row * V), unsigned(left_edge + column * V)
        store_columns(out, total, bias, begin, of_out, biases, i, j, m, n)

    return tiled_product


def fetch(F: type, loads: int, apart: int, deep: Callable, read: Callable) -> Callable:
    """How a thread loads what it puts into shared memory at a step: at one depth, of `loads` lines that lie `apart`."""
    zero = F(0)

    @cuda.jit(device=True, forceinline=True)
    def fetch_lines(values, array, where, places, ys, xs, first, lines, depth, stop):
        """first: the first line of this thread, of `lines` that the operand has."""
        for s in range(loads):
            values[s] = zero
        if depth < stop:
            place, y, x = deep(where, depth)
            for s in range(loads):
                if unsigned(first + s * apart) < lines:
                    at = unsigned(places[s] + place)
                    values[s] = read(array, where, at, unsigned(ys[s] + y), unsigned(xs[s] + x))

    return fetch_lines


def unrolled(count: int, body: Callable) -> Callable:
    """A device function that calls body(0, ...), body(1, ...) and so on, each with its number as a constant.

    A local array lies in registers only where all its indices are constants, and of a long loop the compiler keeps the
    loop.
    """

    @cuda.jit(device=True, forceinline=True)
    def last(*given):
        body(count - 1, *given)

    step = last
    for number in reversed(range(count - 1)):
        step = _before(number, body, step)
    return step


def _before(number: int, body: Callable, following: Callable) -> Callable:
    @cuda.jit(device=True, forceinline=True)
    def step(*given):
        body(number, *given)
        following(*given)

    return step


@functools.cache
def added(F: type, result: Callable, biased: bool, activation: str):
    """A thread for each element of the result: it adds up the products of the parts of the depth, one after another."""
    start, row_of, column_of, _ = result(F)
    finish = scalar(activation, F)
    zero = F(0)

    @cuda.jit
    def parts_added(out, products, bias, batch, m, n, parts, of_out, of_bias):
        m, n, parts = unsigned(m), unsigned(n), unsigned(parts)
        count, size, index, step = unsigned(batch * m * n), unsigned(m * n), column(), columns()
        while index < count:
            line, j = unsigned(index // n), unsigned(index % n)
            matrix, i = unsigned(line // m), unsigned(line % m)
            at, value = unsigned(matrix * parts * size + i * n + j), zero
            for _ in range(parts):
                value += products[at]
                at = unsigned(at + size)
            if biased:
                value += bias[unsigned(of_bias[3] + matrix * of_bias[0] + i * of_bias[1] + j * of_bias[2])]
            out[unsigned(start(of_out, matrix) + row_of(of_out, i)[0] + column_of(of_out, j)[0])] = finish(value)
            index = unsigned(index + step)

    return parts_added


# Launching them


def plan(batch: int, m: int, n: int, k: int, dtype) -> tuple[Tile, int]:
    """The tile for a batch of products (m, k) times (k, n), and into how many parts the depth is cut.

    Large tiles read memory least, but a GPU has many processors to keep busy, and what sticks out of the result is
    computed in vain. Where there are few tiles and the depth is long, as in the gradient of a weight, several blocks
    take a part of it each. Numbers of 8 bytes would not find room in the registers for the largest tile.
    """

    def time(tile: Tile) -> float:
        turns = max(1.0, blocks(tile) / device.MULTIPROCESSORS)
        return turns * tile.width**2 / tile.rate

    def blocks(tile: Tile) -> int:
        return batch * -(-m // tile.width) * -(-n // tile.width)

    tile = min((LARGE, MEDIUM, SMALL) if np.dtype(dtype).itemsize <= 4 else (MEDIUM, SMALL), key=time)
    wanted = 2 * device.MULTIPROCESSORS // max(1, blocks(tile))
    return tile, max(1, min(wanted, k // SHORTEST_PART))


def multiply(
    result: Operand,
    left: Operand,
    right: Operand,
    sizes: tuple[int, int, int, int],
    bias: CudaArray | None = None,
    of_bias: tuple[int, int, int] = (0, 0, 0),
    activation: str = "same",
    how: tuple[Tile, int] | None = None,
) -> None:
    """result = activation(left times right + bias); sizes: (batch, m, n, k).

    of_bias: how far the elements of the bias lie apart from one matrix, row and column to the next. activation: a
    function of scalars.py. how: what `plan` says, unless given.
    """
    batch, m, n, k = sizes
    if not batch * m * n:
        return
    out, F = result.array, result.array.dtype.type
    tile, parts = how or plan(batch, m, n, k, F)
    part = -(-max(k, 1) // (parts * tile.deep)) * tile.deep
    blocks = parts * batch * -(-m // tile.width) * -(-n // tile.width)
    biased, offset = (True, bias.first) if bias is not None else (False, 0)
    biases = bias if bias is not None else out  # which is then not read

    def products(into: Operand, biased: bool, activation: str) -> None:
        kernel = tiled(F, tile, left.functions, right.functions, into.functions, biased, activation)
        launch(
            kernel, blocks, tile.side**2, into.array, left.array, right.array, biases, m, n, k, parts, part,
            into.where, left.where, right.where, (*of_bias, offset), left.deep_next, right.deep_next,
        )  # fmt: skip

    if parts == 1:
        products(result, biased, activation)
        return
    partial = CudaArray((batch * parts, m, n), F)
    products(matrices(partial, n, 1, (batch * parts,), (m * n,)), False, "same")
    launch(
        added(F, result.functions, biased, activation), over(batch * m * n), THREADS, out, partial, biases,
        batch, m, n, parts, result.where, (*of_bias, offset),
    )  # fmt: skip
