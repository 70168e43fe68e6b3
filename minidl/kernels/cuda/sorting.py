"""The order of elements, by a bitonic network: which places are compared does not depend on what stands there.

Batcher 1968, "Sorting Networks and their Applications". To sort n elements, n a power of 2, runs of 2, 4, 8, ... are
merged, neighbours in opposite directions, so that two of them rise and fall as one, which is halved again and again:
log2(n) (log2(n) + 1) / 2 rounds, in each of which all elements are compared in pairs at once.
"""

import functools

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import array, assign, broadcast_to, contiguous, part, permute
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over
from minidl.kernels.cuda.places import column, columns
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["argsort"]

TILE = 2 * THREADS  # elements that a block sorts in shared memory, a pair for each thread


def comparison(descending: bool):
    @cuda.jit(device=True)
    def first(a, i, b, k, width):
        """Whether a, from place i of its row, comes before b, from k. NaN is the largest; equals stay in order.

        What stands behind the end of a row, at `width` or later, stays behind.
        """
        if i >= width or k >= width or a == b or (a != a and b != b):
            return i < k
        return (a < b or b != b) != descending

    return first


def sort_tiles(first, F: type):
    @cuda.jit
    def sort_tile(keys, places, count, n, width, smallest, largest):
        """Merge the runs of `smallest` to `largest` elements, as far as their pairs lie within a tile of this block.

        keys, places: `count` elements and where in their row of n they stood, in place. Between two rounds there is
        a barrier of the block only, and no trip to memory.
        """
        shared_keys = cuda.shared.array(TILE, F)
        shared_places = cuda.shared.array(TILE, np.int64)
        count, below_n, largest = unsigned(count), unsigned(n - 1), unsigned(largest)
        thread, threads = unsigned(cuda.threadIdx.x), unsigned(cuda.blockDim.x)
        begin, step = unsigned(cuda.blockIdx.x * 2 * threads), unsigned(cuda.gridDim.x * 2 * threads)
        while begin < count:
            for half in range(2):
                i = unsigned(thread + half * threads)
                at = unsigned(begin + i)
                if at < count:
                    shared_keys[i], shared_places[i] = keys[at], places[at]
            cuda.syncthreads()
            size = unsigned(smallest)
            while size <= largest:
                distance = min(unsigned(size // 2), threads)
                while distance > 0:
                    i = unsigned(2 * thread - (thread & (distance - 1)))
                    j = unsigned(i + distance)
                    if begin + j < count:
                        a, b, k, m = shared_keys[i], shared_keys[j], shared_places[i], shared_places[j]
                        rising = unsigned(begin + i) & size & below_n == 0
                        if first(b, m, a, k, width) == rising:
                            shared_keys[i], shared_keys[j], shared_places[i], shared_places[j] = b, a, m, k
                    cuda.syncthreads()
                    distance = unsigned(distance // 2)
                size = unsigned(2 * size)
            for half in range(2):
                i = unsigned(thread + half * threads)
                at = unsigned(begin + i)
                if at < count:
                    keys[at], places[at] = shared_keys[i], shared_places[i]
            cuda.syncthreads()
            begin = unsigned(begin + step)

    return sort_tile


def compare_far(first):
    @cuda.jit
    def compare(keys, places, count, n, width, size, distance):
        """One round of the merge of runs of `size`, whose pairs lie further apart than a tile."""
        pairs, below_n, size, distance = unsigned(count // 2), unsigned(n - 1), unsigned(size), unsigned(distance)
        pair, step = column(), columns()
        while pair < pairs:
            i = unsigned(2 * pair - (pair & (distance - 1)))
            j = unsigned(i + distance)
            a, b, k, m = keys[i], keys[j], places[i], places[j]
            rising = i & size & below_n == 0
            if first(b, m, a, k, width) == rising:
                keys[i], keys[j], places[i], places[j] = b, a, m, k
            pair = unsigned(pair + step)

    return compare


@functools.cache
def _kernels(descending: bool, F: type):
    first = comparison(descending)
    return sort_tiles(first, F), compare_far(first)


def argsort(x, dim, descending):
    """The indices that sort x along `dim`, an int: equal elements stay in order, NaN is the largest."""
    order = (*(d for d in range(x.ndim) if d != dim), dim)
    x = permute(x, order)
    width = x.shape[-1]
    n = 1
    while n < width:
        n *= 2
    keys, places = CudaArray((*x.shape[:-1], n), x.dtype), CudaArray((*x.shape[:-1], n), np.int64)
    assign(part(keys, x.ndim - 1, 0, width), x)
    assign(places, broadcast_to(array(np.arange(n), np.int64), places.shape))
    if n > 1 and keys.size:
        _sort(keys, places, n, width, descending)
    places = part(places, x.ndim - 1, 0, width)
    return contiguous(permute(places, tuple(order.index(d) for d in range(x.ndim))))


def _sort(keys: CudaArray, places: CudaArray, n: int, width: int, descending: bool) -> None:
    """Sort the rows of n elements in place."""
    count = keys.size
    tile = min(2 * THREADS, 1 << (count - 1).bit_length())
    tiles, far = _kernels(descending, keys.dtype.type)
    blocks = over(count, tile)
    launch(tiles, blocks, tile // 2, keys, places, count, n, width, 2, min(n, tile))
    size = 2 * tile
    while size <= n:
        distance = size // 2
        while distance >= tile:
            launch(far, over(count // 2), THREADS, keys, places, count, n, width, size, distance)
            distance //= 2
        launch(tiles, blocks, tile // 2, keys, places, count, n, width, size, size)
        size *= 2
