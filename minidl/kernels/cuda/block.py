"""What the threads of a block compute together: functions that kernels call, and in which their threads wait."""

import functools
from collections.abc import Callable

from minidl.kernels.cuda.kernel_launch import THREADS, WARP, block_for
from minidl.kernels.cuda.target import cuda, unsigned


def lay_out(length: int, wanted: int, step: int, rows: int, next_row: int) -> tuple[int, tuple[int, int], int, int]:
    """-> whether rows are `side_by_side`, the shape of a block, and how many lanes a row and lines a block has of it.

    The rows have `length` elements that lie `step` apart; `rows` of them lie `next_row` apart. If that is nearer, rows
    are side by side, and a warp reads one element of each of up to 32. wanted: lanes of a row where they are not.
    """
    if rows > 1 and 0 < abs(next_row) < abs(step):
        lines, _ = block_for(rows, WARP)
        lanes, _ = block_for(length, THREADS // lines)
        return 1, (lines, lanes), lanes, lines
    lanes, lines = block_for(wanted)
    return 0, (lanes, lines), lanes, lines


@cuda.jit(device=True)
def laid_out(side_by_side):
    """Of this thread: place in the block, lane, lanes of a row, line, lines, how far the places of two lanes lie apart.

    The lanes of a row lie along x in a block and its lines along y, or the other way round if rows are `side_by_side`.
    """
    x, y = unsigned(cuda.threadIdx.x), unsigned(cuda.threadIdx.y)
    across, down = unsigned(cuda.blockDim.x), unsigned(cuda.blockDim.y)
    place = unsigned(x + y * across)
    if side_by_side:
        return place, y, down, x, across, across
    return place, x, across, y, down, unsigned(1)


@functools.cache
def tree(combine: Callable) -> Callable:
    """The function that combines the values of `lanes` threads to one, which all of them get.

    combine: a device function of two values, in any order. shared: memory with a place for each thread of the block;
    place: that of this thread. lane: which of the `lanes` threads this is, 0 for the first; their number is a power of
    2, their places lie `step` apart. All threads of the block must call it, those that have nothing with a value that
    changes nothing; afterwards `shared` may be used again.

    In each round half of the threads take the value of one in the other half: log2(lanes) rounds instead of `lanes`
    steps, and for sums an error that grows as slowly (Harris 2007, "Optimizing Parallel Reduction in CUDA", section 3:
    threads side by side stay busy side by side, and touch memory side by side).
    """

    @cuda.jit(device=True)
    def combined(shared, value, place, lane, lanes, step):
        shared[place] = value
        cuda.syncthreads()
        distance = unsigned(lanes // 2)
        while distance > 0:
            if lane < distance:
                shared[place] = combine(shared[place], shared[unsigned(place + distance * step)])
            cuda.syncthreads()
            distance = unsigned(distance // 2)
        value = shared[unsigned(place - lane * step)]
        cuda.syncthreads()
        return value

    return combined


@functools.cache
def tree_of_places(better: Callable) -> Callable:
    """As tree, for the best of values and where it stands, of which all threads get the latter and the value.

    better: a device function (value, index, other value, other index) -> whether the other one is the better.
    """

    @cuda.jit(device=True)
    def best(values, indices, value, index, place, lane, lanes, step):
        values[place], indices[place] = value, index
        cuda.syncthreads()
        distance = unsigned(lanes // 2)
        while distance > 0:
            if lane < distance:
                other = unsigned(place + distance * step)
                if better(values[place], indices[place], values[other], indices[other]):
                    values[place], indices[place] = values[other], indices[other]
            cuda.syncthreads()
            distance = unsigned(distance // 2)
        first = unsigned(place - lane * step)
        value, index = values[first], indices[first]
        cuda.syncthreads()
        return value, index

    return best


@functools.cache
def scan(combine: Callable, start) -> Callable:
    """The function that combines the values of all threads up to each -> (without its own, with it, of all).

    combine: a device function of two values, the earlier first; start: what changes nothing. For the arguments see
    tree. In each round every lane adds what the lane `distance` before it has: log2(lanes) rounds (Hillis and Steele
    1986, "Data Parallel Algorithms").
    """

    @cuda.jit(device=True)
    def scanned(shared, value, place, lane, lanes, step):
        shared[place] = value
        cuda.syncthreads()
        distance = unsigned(1)
        while distance < lanes:
            if lane >= distance:
                value = combine(shared[unsigned(place - distance * step)], value)
            cuda.syncthreads()
            shared[place] = value
            cuda.syncthreads()
            distance = unsigned(2 * distance)
        before = shared[unsigned(place - step)] if lane > 0 else start
        total = shared[unsigned(place + (lanes - 1 - lane) * step)]
        cuda.syncthreads()
        return before, value, total

    return scanned
