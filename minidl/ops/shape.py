"""Ops that move elements or give them another shape, dtype or device, and change no value."""

import math
from collections.abc import Sequence

import numpy as np

from minidl import kernels as _kernels
from minidl.creation import sizes
from minidl.tensor import DTYPES, Op, Tensor, dtype_of


class Reshape(Op):
    """The same elements, in row-major order, in another shape."""

    passes_gradient = True

    def __init__(self, shape: tuple[int, ...]):
        self.new_shape = shape

    def forward(self, x):
        self.shape = x.shape
        return self.kernels.reshape(x, self.new_shape)

    def backward(self, grad):
        return self.kernels.reshape(grad, self.shape)


class Permute(Op):
    """Dimension i of the result is dimension dims[i] of x."""

    passes_gradient = True

    def __init__(self, dims: tuple[int, ...]):
        self.dims = dims

    def forward(self, x):
        return self.kernels.permute(x, self.dims)

    def backward(self, grad):
        inverse = sorted(range(len(self.dims)), key=self.dims.__getitem__)
        return self.kernels.permute(grad, tuple(inverse))


class Expand(Op):
    """Repeat dimensions of size 1, and add leading ones, up to `shape`."""

    passes_gradient = True

    def __init__(self, shape: tuple[int, ...]):
        self.new_shape = shape

    def forward(self, x):
        self.shape = x.shape
        return self.kernels.broadcast_to(x, self.new_shape)

    def backward(self, grad):
        added = len(grad.shape) - len(self.shape)
        stretched = [d for d, n in enumerate(self.shape, added) if n == 1]
        return self.kernels.reshape(self.kernels.sum(grad, (*range(added), *stretched), True), self.shape)


class Index(Op):
    """x[key], for a tuple of ints, slices and integer arrays."""

    def __init__(self, key: tuple):
        self.key = key

    def forward(self, x):
        self.shape = x.shape
        return self.kernels.index(x, self.key)

    def backward(self, grad):
        return self.kernels.index_grad(grad, self.key, self.shape)


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


class Cast(Op):
    """The same values in another dtype."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype

    def forward(self, x):
        self.before = x.dtype
        return self.kernels.cast(x, self.dtype)

    def backward(self, grad):
        return self.kernels.cast(grad, self.before)


class Move(Op):
    """A copy on the device `name`."""

    def __init__(self, name: str):
        self.there = _kernels.for_device(name)

    def forward(self, x):
        return _move(x, self.kernels, self.there)

    def backward(self, grad):
        return _move(grad, self.there, self.kernels)


def _move(x, here, there):
    return there.array(x if there.DEVICE == "meta" else here.to_numpy(x), x.dtype)


def normalize_dim(dim: int, shape: tuple[int, ...]) -> int:
    """`dim` counted from the front; IndexError if a tensor of `shape` has no such dimension."""
    if not -len(shape) <= dim < len(shape):
        raise IndexError(f"dim {dim} is out of range for a tensor of shape {shape}")
    return dim % len(shape)


def reshape(x: Tensor, *shape) -> Tensor:
    """The same elements in another shape; one size may be -1: what is left over."""
    shape = sizes(shape)
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) > 1 or (x.numel() % known if -1 in shape and known else known != x.numel()):
        raise ValueError(f"reshape: {x.numel()} elements of shape {x.shape} do not fit shape {shape}")
    if -1 in shape:
        if known == 0:
            raise ValueError(f"reshape: a size of -1 is ambiguous beside a size of 0, in {shape}")
        shape = tuple(x.numel() // known if n == -1 else n for n in shape)
    return x if shape == x.shape else Reshape(shape)(x)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the dimensions from start_dim to end_dim, both included, into one."""
    if not x.shape:
        return reshape(x, 1)
    start, end = normalize_dim(start_dim, x.shape), normalize_dim(end_dim, x.shape)
    if start > end:
        raise ValueError(f"flatten: start_dim={start_dim} comes after end_dim={end_dim} in shape {x.shape}")
    return reshape(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


def squeeze(x: Tensor, dim: int | None = None) -> Tensor:
    """Without the dimension `dim` if its size is 1; without all dimensions of size 1 if dim is None."""
    drop = range(x.ndim) if dim is None else (normalize_dim(dim, x.shape),)
    return reshape(x, tuple(n for d, n in enumerate(x.shape) if n != 1 or d not in drop))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at `dim`."""
    dim = normalize_dim(dim, (*x.shape, 1))
    return reshape(x, (*x.shape[:dim], 1, *x.shape[dim:]))


def permute(x: Tensor, *dims) -> Tensor:
    """Dimension i of the result is dimension dims[i] of x."""
    dims = tuple(normalize_dim(d, x.shape) for d in sizes(dims))
    if sorted(dims) != list(range(x.ndim)):
        raise ValueError(f"permute: {dims} is not an order of the {x.ndim} dimensions of shape {x.shape}")
    return Permute(dims)(x)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """With two dimensions exchanged."""
    dim0, dim1 = normalize_dim(dim0, x.shape), normalize_dim(dim1, x.shape)
    dims = list(range(x.ndim))
    dims[dim0], dims[dim1] = dim1, dim0
    return Permute(tuple(dims))(x)


def expand(x: Tensor, *shape) -> Tensor:
    """With dimensions of size 1 repeated up to `shape`, without a copy; -1 keeps a size."""
    shape = sizes(shape)
    added = len(shape) - x.ndim
    shape = tuple(x.shape[d - added] if n == -1 and d >= added else n for d, n in enumerate(shape))
    if added < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[added:], strict=True)):
        raise ValueError(f"expand: shape {x.shape} cannot be repeated to {shape}")
    return Expand(shape)(x)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along `dim`; their other sizes must agree."""
    if not tensors:
        raise ValueError("cat needs at least one tensor")
    dim = normalize_dim(dim, tensors[0].shape)
    rest = {(*x.shape[:dim], *x.shape[dim + 1 :]) for x in tensors}
    if len(rest) > 1:
        raise ValueError(f"cat along dim {dim}: the other sizes of {', '.join(str(x.shape) for x in tensors)} differ")
    return Concatenate(dim)(*tensors)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape, as slices along a new dimension `dim`."""
    return cat([unsqueeze(x, dim) for x in tensors], dim if dim >= 0 else dim + tensors[0].ndim + 1)


def split(x: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Slices of x along `dim`: of split_size each (the last may be shorter), or of the sizes listed."""
    dim = normalize_dim(dim, x.shape)
    length = x.shape[dim]
    if isinstance(split_size, int):
        if split_size < 1:
            raise ValueError(f"split: split_size={split_size}, it must be at least 1")
        split_size = [min(split_size, length - start) for start in range(0, length, split_size)]
    if min(split_size, default=0) < 0:
        raise ValueError(f"split: the sizes {list(split_size)} must not be negative")
    if sum(split_size) != length:
        raise ValueError(
            f"split: the sizes {list(split_size)} do not add up to {length}, size of dim {dim} of {x.shape}"
        )
    ends = np.cumsum(split_size).tolist()
    lead = (slice(None),) * dim
    return tuple(Index((*lead, slice(end - n, end)))(x) for n, end in zip(split_size, ends, strict=True))


def getitem(x: Tensor, key) -> Tensor:
    """x[key], by NumPy's rules: ints, slices, None, ..., and integer or bool tensors, arrays or lists."""
    return Index(index_key(x, key))(x)


def index_key(x: Tensor, key) -> tuple:
    """`key` as a tuple of ints, slices and arrays, for the kernels."""
    return tuple(_index_array(k, x) for k in (key if isinstance(key, tuple) else (key,)))


def _index_array(k, x):
    if isinstance(k, Tensor):
        if k.device != x.device:
            raise ValueError(f"index is on {k.device}, the tensor on {x.device}")
        return k.data
    return np.asarray(k) if isinstance(k, list) else k


def cast(x: Tensor, dtype) -> Tensor:
    """The same values in another dtype; x itself if it has it already."""
    dtype = dtype_of(dtype)
    return x if x.dtype == dtype else Cast(dtype)(x)


def to(x: Tensor, *targets) -> Tensor:
    """On another device ("cpu", "meta", …) or in another dtype, or both; x itself if nothing changes."""
    for target in targets:
        if isinstance(target, str) and target not in DTYPES:
            _kernels.for_device(target)
            x = x if x.device == target else Move(target)(x)
        else:
            x = cast(x, target)
    return x
