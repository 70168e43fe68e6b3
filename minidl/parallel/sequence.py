"""Which positions of a sequence a rank of the context axis has: two chunks, one early and one late ("zigzag").

Under a causal mask a query sees the keys before it, so that late positions cost more than early ones. A sequence that
is cut into 2 × size chunks, of which rank r has chunks r and 2 × size - 1 - r, costs every rank the same.
"""

import numpy as np

from minidl.kernels import for_array


def positions(sequence: int, rank: int, size: int) -> np.ndarray:
    """The positions, rising, that `rank` of `size` has: int64, sequence / size of them.

    ValueError where the sequence cannot be cut into 2 × size equal chunks; one rank has any sequence whole.
    """
    if size == 1:
        return np.arange(sequence)
    return np.concatenate([np.arange(chunk.start, chunk.stop) for chunk in _chunks(sequence, rank, size)])


def part(array, dim: int, rank: int, size: int):
    """The `positions` of `array` along `dim` that `rank` of `size` has, as a contiguous copy; of one rank `array`."""
    if size == 1:
        return array
    kernels, dim = for_array(array), dim % array.ndim
    before, sequence, after = array.shape[:dim], array.shape[dim], array.shape[dim + 1 :]
    out = kernels.empty((*before, sequence // size, *after), array.dtype)
    half, leading = sequence // size // 2, (slice(None),) * dim
    for place, chunk in zip((slice(half), slice(half, None)), _chunks(sequence, rank, size), strict=True):
        kernels.assign(kernels.index(out, (*leading, place)), kernels.index(array, (*leading, chunk)))
    return out


def _chunks(sequence: int, rank: int, size: int) -> tuple[slice, slice]:
    if sequence % (2 * size):
        raise ValueError(f"a sequence of {sequence} is not divisible by 2 × context={size}")
    length, late = sequence // (2 * size), 2 * size - 1 - rank
    return slice(rank * length, (rank + 1) * length), slice(late * length, (late + 1) * length)
