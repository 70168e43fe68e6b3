"""Windows: where the windows of a pool lie along one dimension, for the kernels of every device."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np


@dataclass(frozen=True, eq=False)
class Windows:
    """Window i holds the elements starts[i], starts[i] + step, … below stops[i] of a dimension of `size`.

    divisors: what an average over window i is divided by: how many elements it holds, unless padding counts too.
    """

    size: int
    starts: np.ndarray
    stops: np.ndarray
    step: int
    divisors: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def length(self) -> int:
        """How many elements the longest window holds."""
        return max(1, int((-(-(self.stops - self.starts) // self.step)).max()))

    def all_hold(self, elements: int) -> bool:
        """Whether every window is `elements` neighbours."""
        return self.step == 1 and bool((self.stops - self.starts == elements).all())

    @cached_property
    def overlap(self) -> bool:
        """Whether an element may be in two windows."""
        return self.step > 1 or bool((self.starts[1:] < self.stops[:-1]).any())

    @cached_property
    def places(self) -> list[tuple[slice | np.ndarray, np.ndarray | None]]:
        """For each place in a window, the index of that element of every window, and which windows have it.

        A slice and None where all have it and lie evenly; else the index of one that is missing is another's.
        """
        apart = np.diff(self.starts)
        even = not apart.size or (apart[0] > 0 and (apart == apart[0]).all())
        stride = int(apart[0]) if apart.size else 1
        found = []
        for place in range(self.length):
            index = self.starts + place * self.step
            inside = index < self.stops
            if even and inside.all():
                found.append((slice(int(index[0]), int(index[-1]) + 1, stride), None))
            else:
                found.append((np.where(inside, index, 0), inside))
        return found


def places_dtype(rows: Windows, columns: Windows) -> type[np.integer]:
    """Of an element's place in its window, whose lines and columns these are: the smallest that holds them all."""
    return np.uint8 if rows.length * columns.length <= 256 else np.int32


@lru_cache
def regular(size, kernel, stride, padding, dilation=1, ceil_mode=False, count_include_pad=True) -> Windows:
    """Windows of `kernel` elements, `dilation` apart, that begin every `stride` in a dimension padded at both ends.

    ceil_mode: the last window may hang over the end, if it begins before it. Empty if not one window fits.
    """
    span = dilation * (kernel - 1) + 1
    count = (size + 2 * padding - span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    first = np.arange(max(0, count), dtype=np.int64) * stride - padding
    skipped = np.maximum(0, -(first // dilation))  # elements of the window before the first of the dimension
    starts, stops = first + skipped * dilation, np.minimum(first + span, size)
    counted = np.minimum(first + span, size + padding) - first if count_include_pad else stops - starts
    return Windows(size, starts, stops, dilation, counted)


@lru_cache
def adaptive(size: int, count: int) -> Windows:
    """`count` windows of about equal length that cover a dimension: from i * size / count to the next one's begin."""
    edges = np.arange(count + 1, dtype=np.int64) * size
    starts, stops = edges[:-1] // count, -(-edges[1:] // count)
    return Windows(size, starts, stops, 1, stops - starts)
