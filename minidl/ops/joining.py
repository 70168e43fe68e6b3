"""Tensors joined into one, cut into several, and repeated."""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np

from minidl.creation import sizes
from minidl.op import Op
from minidl.ops.indexing import Index, index_select
from minidl.ops.promotion import promoted
from minidl.ops.shape import expand, flatten, normalize_dim, reshape, unsqueeze
from minidl.tensor import Tensor
from minidl.validation import check_int


class Concatenate(Op):
    """Tensors one after the other along `dim`."""

    passes_gradient = True

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, *arrays):
        self.lengths = [x.shape[self.dim] for x in arrays]
        return self.kernels.concatenate(arrays, self.dim)

    def backward(self, grad):
        ends = np.cumsum(self.lengths).tolist()
        lead = (slice(None),) * self.dim
        parts = zip(self.lengths, ends, strict=True)
        return tuple(self.kernels.index(grad, (*lead, slice(end - n, end))) for n, end in parts)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along `dim`; their other sizes must agree."""
    if not tensors:
        raise ValueError("cat needs at least one tensor")
    if any(x.ndim != 1 for x in tensors):  # PyTorch passes over empty vectors, whatever the shape of the rest
        tensors = [x for x in tensors if x.shape != (0,)]
    dim = normalize_dim(dim, tensors[0].shape)
    rest = {(*x.shape[:dim], *x.shape[dim + 1 :]) for x in tensors}
    if len(rest) > 1 or any(x.ndim == 0 for x in tensors):
        raise ValueError(f"cat along dim {dim}: the other sizes of {', '.join(str(x.shape) for x in tensors)} differ")
    return Concatenate(dim)(*promoted(tensors))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape, as slices along a new dimension `dim`."""
    if len({x.shape for x in tensors}) != 1:
        raise ValueError(f"stack needs tensors of one shape, not {', '.join(str(x.shape) for x in tensors) or 'none'}")
    return cat([unsqueeze(x, dim) for x in tensors], dim if dim >= 0 else dim + tensors[0].ndim + 1)


def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """The slice of x along `dim` of `length` from `start`."""
    dim = normalize_dim(dim, x.shape)
    check_int("start", start)
    check_int("length", length)
    size = x.shape[dim]
    first = start + size if start < 0 else start
    if not 0 <= first <= first + length <= size or length < 0:
        raise ValueError(f"narrow: {length} from {start} do not lie in dim {dim} of shape {x.shape}")
    return Index((*(slice(None),) * dim, slice(first, first + length)))(x)


def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Slices of x along `dim`: of split_size each (the last may be shorter), or of the sizes listed."""
    dim = normalize_dim(dim, x.shape)
    length = x.shape[dim]
    for size in split_size if isinstance(split_size, Iterable) else (split_size,):
        check_int("split_size", size)
    if isinstance(split_size, Integral):
        if split_size < 1:
            raise ValueError(f"split: split_size={split_size}, it must be at least 1")
        split_size = [min(split_size, length - start) for start in range(0, max(length, 1), split_size)]
    if min(split_size, default=0) < 0:
        raise ValueError(f"split: the sizes {list(split_size)} must not be negative")
    if sum(split_size) != length:
        raise ValueError(
            f"split: the sizes {list(split_size)} do not add up to {length}, size of dim {dim} of {x.shape}"
        )
    ends = np.cumsum(split_size).tolist()
    lead = (slice(None),) * dim
    return tuple(Index((*lead, slice(end - n, end)))(x) for n, end in zip(split_size, ends, strict=True))


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` slices of x along `dim`, all of one size but the last."""
    check_int("chunks", chunks)
    if chunks < 1:
        raise ValueError(f"chunk: chunks={chunks}, it must be at least 1")
    length = x.shape[normalize_dim(dim, x.shape)]
    return split(x, math.ceil(length / chunks) if length else [0] * chunks, dim)


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices of x along `dim`, without that dimension."""
    dim = normalize_dim(dim, x.shape)
    return tuple(Index((*(slice(None),) * dim, i))(x) for i in range(x.shape[dim]))


def repeat(x: Tensor, *repeats) -> Tensor:
    """x copied so often along each dimension; there may be more numbers than dimensions."""
    repeats = sizes(repeats)
    if len(repeats) < x.ndim or min(repeats, default=0) < 0:
        raise ValueError(f"repeat: {repeats} must be a number of at least 0 for each dimension of shape {x.shape}")
    shape = (1,) * (len(repeats) - x.ndim) + x.shape
    pairs = zip(repeats, shape, strict=True)
    tiles = expand(reshape(x, [m for n in shape for m in (1, n)]), [m for pair in pairs for m in pair])
    return reshape(tiles, [r * n for r, n in zip(repeats, shape, strict=True)])


def repeat_interleave(x: Tensor, repeats: int | Tensor, dim: int | None = None) -> Tensor:
    """Each slice along `dim` (each element, if None) so often, next to itself; repeats: one number or one a slice."""
    if dim is None:
        x, dim = flatten(x), 0
    dim = normalize_dim(dim, x.shape)
    if not isinstance(repeats, Tensor):
        check_int("repeats", repeats)
    elif repeats.dtype.kind != "i":
        raise TypeError(f"repeat_interleave: repeats must be of dtype int64, not {repeats.dtype}")
    counts = repeats.numpy() if isinstance(repeats, Tensor) else repeats
    if np.min(counts, initial=0) < 0 or np.size(counts) not in (1, x.shape[dim]):
        raise ValueError(f"repeat_interleave: {counts} is no number of at least 0 for each of {x.shape[dim]} slices")
    return index_select(x, dim, Tensor(x.kernels.array(np.repeat(np.arange(x.shape[dim]), counts), np.int64)))
