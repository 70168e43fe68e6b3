"""Ops that move elements or give them another shape, dtype or device, and change no value."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from itertools import chain

import numpy as np

from minidl import kernels as _kernels
from minidl.creation import sizes
from minidl.dtypes import DTYPES, dtype_of
from minidl.op import Op
from minidl.tensor import Tensor
from minidl.validation import check_int


def unbroadcast(kernels, grad, shape):
    """Sum `grad` over the dimensions that broadcasting added or stretched, so that it has `shape` again."""
    if grad.shape == shape:
        return grad
    added = len(grad.shape) - len(shape)
    stretched = (d for d, n in enumerate(shape, added) if n == 1 and grad.shape[d] != 1)
    grad = kernels.sum(grad, (*range(added), *stretched), True)
    return kernels.reshape(grad, shape)


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
        return unbroadcast(self.kernels, grad, self.shape)


class Clone(Op):
    """A copy of x."""

    passes_gradient = True

    def forward(self, x):
        return self.kernels.copy(x)

    def backward(self, grad):
        return grad


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
    """A copy on the device `name`. beside: it may run beside what is computed, where host memory is pinned."""

    def __init__(self, name: str, beside: bool = False):
        self.there, self.beside = _kernels.for_device(name), beside

    def forward(self, x):
        return self.there.from_device(x, self.kernels, self.beside)

    def backward(self, grad):
        return self.kernels.from_device(grad, self.there, False)


def normalize_dim(dim: int, shape: tuple[int, ...]) -> int:
    """`dim` counted from the front; IndexError if a tensor of `shape` has no such dimension, TypeError for no int."""
    if type(dim) is not int:
        check_int("dim", dim)
    if not -len(shape) <= dim < len(shape):
        raise IndexError(f"dim {dim} is out of range for a tensor of shape {shape}")
    return dim % len(shape)


def one_dim(dim: int | None, shape: tuple[int, ...]) -> int | None:
    """The one dimension to reduce; None for all elements: without `dim`, and of a tensor without dimensions."""
    if dim is None:
        return None
    dim = normalize_dim(dim, shape or (1,))  # PyTorch takes a tensor without dimensions for one with one
    return dim if shape else None


def several_dims(dim: int | Iterable[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions named, counted from the front; ValueError if one is named twice."""
    dims = tuple(normalize_dim(d, shape) for d in (dim if isinstance(dim, Iterable) else (dim,)))
    if len(set(dims)) < len(dims):
        raise ValueError(f"a dimension is named twice in dim={dim} for shape {shape}")
    return dims


def reduced_dims(dim, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions to reduce, counted from the front: all for None and for an empty tuple."""
    dims = () if dim is None else several_dims(dim, shape or (1,))  # as in `one_dim`
    return dims if dims and shape else tuple(range(len(shape)))


def vector(x: Tensor) -> Tensor:
    """x, or a vector of its one element if it has no dimensions."""
    return x if x.data.shape else reshape(x, 1)


def along_a_dim(function: Callable) -> Callable:
    """`function(x, …)` along dimensions of x, where an x without any is taken for a vector, as in PyTorch."""

    @wraps(function)
    def along(x: Tensor, *arguments, **options):
        found = function(vector(x), *arguments, **options)
        if x.data.shape:
            return found
        return reshape(found, ()) if isinstance(found, Tensor) else type(found)(*(reshape(y, ()) for y in found))

    return along


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
    x = vector(x)
    start, end = normalize_dim(start_dim, x.shape), normalize_dim(end_dim, x.shape)
    if start > end:
        raise ValueError(f"flatten: start_dim={start_dim} comes after end_dim={end_dim} in shape {x.shape}")
    return reshape(x, *x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


def squeeze(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Without the dimensions `dim` whose size is 1; without all dimensions of size 1 if dim is None."""
    drop = several_dims(range(x.ndim) if dim is None else dim, x.shape or (1,))
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


@along_a_dim
def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """With two dimensions exchanged."""
    dim0, dim1 = normalize_dim(dim0, x.shape), normalize_dim(dim1, x.shape)
    dims = list(range(x.ndim))
    dims[dim0], dims[dim1] = dim1, dim0
    return Permute(tuple(dims))(x)


@along_a_dim
def movedim(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """With the dimensions `source` at the places `destination`, the others in order."""
    source, destination = (several_dims(dims, x.shape) for dims in (source, destination))
    if len(source) != len(destination):
        raise ValueError(f"movedim: {source} to {destination}, each needs as many dimensions")
    places = dict(zip(destination, source, strict=True))
    rest = (d for d in range(x.ndim) if d not in source)
    return permute(x, *(places[d] if d in places else next(rest) for d in range(x.ndim)))


def expand(x: Tensor, *shape) -> Tensor:
    """With dimensions of size 1 repeated up to `shape`, without a copy; -1 keeps a size."""
    shape = sizes(shape)
    added = len(shape) - x.ndim
    shape = tuple(x.shape[d - added] if n == -1 and d >= added else n for d, n in enumerate(shape))
    if added < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[added:], strict=True)):
        raise ValueError(f"expand: shape {x.shape} cannot be repeated to {shape}")
    return Expand(shape)(x)


def expand_as(x: Tensor, other: Tensor) -> Tensor:
    """x repeated to the shape of `other`."""
    return expand(x, other.shape)


def clone(x: Tensor) -> Tensor:
    """A copy, on the tape."""
    return Clone()(x)


def contiguous(x: Tensor) -> Tensor:
    """x, or a copy whose elements lie in row-major order if those of x do not."""
    return x if x.kernels.is_contiguous(x.data) else clone(x)


def pin_memory(x: Tensor) -> Tensor:
    """A copy in pinned memory of the host, from which copies to the GPU can run beside the computation."""
    if x.device != "cpu":
        raise RuntimeError(f"only a tensor on the CPU can be pinned, not one on {x.device}")
    if is_pinned(x):
        return x
    values = _kernels.for_device("cuda").pinned(x.shape, x.dtype)
    values[...] = x.data
    return Tensor(values)


def is_pinned(x: Tensor) -> bool:
    """Whether x lies in pinned memory."""
    return x.device == "cpu" and "cuda" in _kernels.BY_DEVICE and _kernels.BY_DEVICE["cuda"].is_pinned(x.data)


def cast(x: Tensor, dtype) -> Tensor:
    """The same values in another dtype; x itself if it has it already."""
    dtype = dtype_of(dtype)
    return x if x.dtype == dtype else Cast(dtype)(x)


def to(x: Tensor, *targets, dtype=None, device: str | None = None, non_blocking: bool = False) -> Tensor:
    """On another device ("cpu", "cuda", "meta") or in another dtype, or both; x itself if nothing changes.

    A tensor stands for its device and dtype.

    non_blocking: do not wait for a copy to the GPU, which needs pinned memory (`pin_memory`) that does not change until
    it is done, nor for one back, whose values are there after `minidl.cuda.synchronize()`.
    """
    targets = (*targets, *(option for option in (dtype, device) if option is not None))
    for target in chain.from_iterable((t.device, t.dtype) if isinstance(t, Tensor) else (t,) for t in targets):
        if isinstance(target, str) and target not in DTYPES:
            _kernels.for_device(target)
            x = x if x.device == target else Move(target, non_blocking)(x)
        else:
            x = cast(x, target)
    return x
