"""Collectives as ops, in conjugate pairs: the backward of one is the forward of the other.

A tensor that is split over a group is either whole on every rank ("replicated"), or each rank has its slice of a
dimension, or each has a part of a sum. These ops lead from one to the other (Shoeybi et al. 2019, "Megatron-LM",
figure 3: f and g):

    op         forward                          backward
    Replicate  whole -> whole: nothing          sums the ranks' gradients
    AllReduce  parts of a sum -> whole: sums    nothing: every rank has the whole gradient
    Slice      whole -> slice                   joins the ranks' gradients
    Gather     slice -> whole: joins            this rank's slice of the gradient, which every rank has whole

Gather is followed by what all ranks do alike. An all-gather whose backward scatters a sum, and the other way round
(Korthikanti et al. 2022, figure 5: g and g bar), are part of the products that they go on beside: see layers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from minidl.op import Op
from minidl.parallel.group import ProcessGroup


class CollectiveOp(Op):
    """An op that communicates within `group`."""

    once_differentiable = "its collectives are on no tape"

    def __init__(self, group: ProcessGroup):
        self.group = group


class Replicate(CollectiveOp):
    """Forward: the input as it is, which every rank has whole. Backward: the sum of the ranks' gradients."""

    def forward(self, x):
        return x

    def backward(self, grad):
        return self.group.all_reduce(self.kernels.copy(grad))


class AllReduce(CollectiveOp):
    """Forward: the sum over the group. Backward: the gradient as it is, which every rank has whole.

    in_place: x becomes the sum. Nobody else may need it: the op that made it does not keep it for its backward.
    """

    passes_gradient = True

    def __init__(self, group: ProcessGroup, in_place: bool = False):
        super().__init__(group)
        self.in_place = in_place

    def forward(self, x):
        return self.group.all_reduce(x if self.in_place else self.kernels.copy(x))

    def backward(self, grad):
        return grad


class _Along(CollectiveOp):
    """An op that splits or joins dimension `dim`."""

    def __init__(self, group: ProcessGroup, dim: int):
        super().__init__(group)
        self.dim = dim


class Slice(_Along):
    """Forward: this rank's slice of what every rank has whole. Backward: the ranks' gradients, joined."""

    def forward(self, x):  # (..., n, ...)
        return own_slice(self.kernels, self.group, x, self.dim)  # (..., n / size, ...)

    def backward(self, grad):
        return all_gather(self.kernels, self.group, grad, self.dim)


class Gather(_Along):
    """Forward: the ranks' slices, joined. Backward: this rank's slice of the gradient, which every rank has whole."""

    def forward(self, x):  # (..., n / size, ...)
        return all_gather(self.kernels, self.group, x, self.dim)  # (..., n, ...)

    def backward(self, grad):
        return own_slice(self.kernels, self.group, grad, self.dim)


# The same on arrays, for ops that communicate while they compute


def own_slice(kernels: ModuleType, group: ProcessGroup, x, dim: int):
    """This rank's slice of dimension `dim`, a copy. ValueError where it does not divide."""
    dim %= len(x.shape)
    rows = _rows(group, x, dim)
    place = (*[slice(None)] * dim, slice(group.rank * rows, (group.rank + 1) * rows))
    return kernels.copy(kernels.index(x, place))


def all_gather(kernels: ModuleType, group: ProcessGroup, x, dim: int):
    """The ranks' arrays, joined along dimension `dim` in rank order."""
    return _joined(kernels, group.all_gather(_alone(kernels, x)), dim)


def all_gather_meanwhile(kernels: ModuleType, group: ProcessGroup, x, dim: int) -> Callable[[], object]:
    """Begin `all_gather`; the function that is returned waits for it and gives what it has found."""
    handle = group.all_gather(_alone(kernels, x), async_op=True)
    return lambda: _joined(kernels, handle.wait(), dim)


def reduce_scatter(kernels: ModuleType, group: ProcessGroup, x, dim: int):
    """This rank's slice, along dimension `dim`, of the sum over the group. ValueError where it does not divide."""
    return _of_one(kernels, group.reduce_scatter(_by_rank(kernels, group, x, dim)))


def reduce_scatter_meanwhile(kernels: ModuleType, group: ProcessGroup, x, dim: int) -> Callable[[], object]:
    """Begin `reduce_scatter`; the function that is returned waits for it and gives what it has found."""
    handle = group.reduce_scatter(_by_rank(kernels, group, x, dim), async_op=True)
    return lambda: _of_one(kernels, handle.wait())


def _rows(group: ProcessGroup, x, dim: int) -> int:
    if x.shape[dim] % group.size:
        raise ValueError(f"dimension {dim} of shape {tuple(x.shape)} is not divisible by {group}")
    return x.shape[dim] // group.size


def _alone(kernels: ModuleType, x):
    return kernels.reshape(x, (1, *x.shape))


def _of_one(kernels: ModuleType, x):
    return kernels.reshape(x, x.shape[1:])


def _joined(kernels: ModuleType, parts, dim: int):
    """parts (size, ..., n, ...) -> (..., size * n, ...)."""
    size, *shape = parts.shape
    dim %= len(shape)
    moved = kernels.permute(parts, (*range(1, dim + 1), 0, *range(dim + 1, len(shape) + 1)))
    return kernels.reshape(moved, (*shape[:dim], size * shape[dim], *shape[dim + 1 :]))


def _by_rank(kernels: ModuleType, group: ProcessGroup, x, dim: int):
    """x (..., n, ...) -> a view (size, ..., n / size, ...)."""
    shape, dim = tuple(x.shape), dim % len(x.shape)
    rows = _rows(group, x, dim)
    parts = kernels.reshape(x, (*shape[:dim], group.size, rows, *shape[dim + 1 :]))
    return kernels.permute(parts, (dim, *range(dim), *range(dim + 1, len(shape) + 1)))
