"""Tensors as other dtypes, and as Python's numbers, lists and iterators."""

import operator
from collections.abc import Iterator

from minidl.dtypes import bool_, float32, float64, int64
from minidl.ops.joining import unbind
from minidl.ops.shape import cast, normalize_dim
from minidl.tensor import Tensor


def double(x: Tensor) -> Tensor:
    """x in float64."""
    return cast(x, float64)


def float(x: Tensor) -> Tensor:
    """x in float32."""
    return cast(x, float32)


def long(x: Tensor) -> Tensor:
    """x in int64."""
    return cast(x, int64)


def bool(x: Tensor) -> Tensor:
    """x in bools: whether an element is not 0."""
    return cast(x, bool_)


def type_as(x: Tensor, other: Tensor) -> Tensor:
    """x in the dtype of `other`."""
    return cast(x, other.dtype)


def tolist(x: Tensor):
    """The elements as Python numbers in nested lists; of a tensor without dimensions the number."""
    return x.numpy().tolist()


def size(x: Tensor, dim: int | None = None) -> tuple[int, ...] | int:
    """The shape, or its size along `dim`."""
    return x.shape if dim is None else x.shape[normalize_dim(dim, x.shape)]


def dim(x: Tensor) -> int:
    """The number of dimensions."""
    return x.ndim


def __iter__(x: Tensor) -> Iterator[Tensor]:
    if not x.shape:
        raise TypeError("iteration over a tensor without dimensions")
    return iter(unbind(x))


def __int__(x: Tensor) -> int:
    return int(x.item())


def __index__(x: Tensor) -> int:
    if x.dtype.kind == "f":
        raise TypeError(f"only a tensor of integers can be an index, not one of {x.dtype}")
    return operator.index(x.item())


def __format__(x: Tensor, spec: str) -> str:
    return format(x.item(), spec) if spec and not x.shape else format(str(x), spec)
