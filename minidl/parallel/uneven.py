"""Slices of unequal sizes of a dimension: rows of an image, samples of a batch. The first ranks have one more."""

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np

from minidl.kernels.meta import MetaArray
from minidl.parallel.conjugates import CollectiveOp
from minidl.parallel.group import ProcessGroup


@lru_cache
def parts(n: int, size: int, multiple: int = 1) -> tuple[range, ...]:
    """Which of range(n) each of `size` ranks has, as numpy.array_split cuts.

    multiple: all parts have a multiple of so many; what is then left over nobody has.
    """
    each, more = divmod(n // multiple, size)
    starts = [multiple * (rank * each + min(rank, more)) for rank in range(size + 1)]
    return tuple(range(start, stop) for start, stop in zip(starts, starts[1:], strict=False))


class SliceUnevenly(CollectiveOp):
    """Forward: this rank's part of dimension `dim` of what every rank has whole. Backward: the gradients, joined."""

    def __init__(self, group: ProcessGroup, dim: int):
        super().__init__(group)
        self.dim = dim

    def forward(self, x):  # (..., n, ...)
        self.parts = parts(x.shape[self.dim], self.group.size)
        return self.kernels.copy(part_of(self.kernels, x, self.dim, self.parts[self.group.rank]))

    def backward(self, grad):
        return joined(self.kernels, self.group, grad, self.dim, [len(part) for part in self.parts])


class GatherUnevenly(CollectiveOp):
    """Forward: the ranks' parts of dimension `dim`, joined. Backward: this rank's part of the gradient.

    Every rank has the whole gradient. sizes: those of the ranks' parts; None where no rank knows them of the others.
    """

    def __init__(self, group: ProcessGroup, dim: int, sizes: Sequence[int] | None = None):
        super().__init__(group)
        self.dim, self.sizes = dim, sizes

    def forward(self, x):
        sizes = self.sizes or sizes_everywhere(self.group, x.shape[self.dim])
        start = sum(sizes[: self.group.rank])
        self.part = range(start, start + x.shape[self.dim])
        return joined(self.kernels, self.group, x, self.dim, sizes)

    def backward(self, grad):
        return self.kernels.copy(part_of(self.kernels, grad, self.dim, self.part))


def part_of(kernels: ModuleType, x, dim: int, part: range):
    """The view of x that has `part` of dimension `dim`."""
    return kernels.index(x, (*[slice(None)] * dim, slice(part.start, part.stop)))


def sizes_everywhere(group: ProcessGroup, size: int) -> list[int]:
    """The `size` that each rank has. On meta nobody knows the others': they are taken to be as large."""
    found = group.all_gather(np.array([size]))
    return [size] * group.size if isinstance(found, MetaArray) else found.tolist()


def joined(kernels: ModuleType, group: ProcessGroup, x, dim: int, sizes: Sequence[int]):
    """The ranks' arrays, of these `sizes` along dimension `dim`, joined along it: a view where it is not the first."""
    order = (dim, *(d for d in range(len(x.shape)) if d != dim))
    whole = group.all_gather(kernels.permute(x, order), sizes=sizes)  # (n, ...)
    return kernels.permute(whole, (*range(1, dim + 1), 0, *range(dim + 1, len(order))))
