"""The largest and the smallest elements, and all of them in order; NaN counts as the largest, and wins either way."""

from typing import NamedTuple

import numpy as np

from minidl.kernels import shapes
from minidl.op import Op
from minidl.ops.choice import maximum, minimum
from minidl.ops.indexing import gather
from minidl.ops.shape import along_a_dim, normalize_dim, one_dim, reduced_dims, reshape
from minidl.tensor import Tensor
from minidl.validation import check_int


class ValuesIndices(NamedTuple):
    """Elements, and where they stand along the dimension."""

    values: Tensor
    indices: Tensor


class Extreme(Op):
    """The extreme elements ("max" or "min") over `dim`; equal ones share the gradient, or those that are NaN do."""

    def __init__(self, kernel: str, dim, keepdim: bool):
        self.kernel, self.dim, self.keepdim = kernel, dim, keepdim

    def forward(self, x):
        self.x, self.y = x, getattr(self.kernels, self.kernel)(x, self.dim, self.keepdim)
        return self.y

    def backward(self, grad):
        k = self.kernels
        y = k.reshape(self.y, shapes.reduced(self.x.shape, self.dim, True))
        chosen = k.logical_or(k.equal(self.x, y), k.isnan(self.x))
        count = k.cast(k.sum(chosen, self.dim, True), grad.dtype)
        return k.masked(k.divide(k.reshape(grad, y.shape), count), chosen)


class ExtremeAt(Op):
    """The extreme elements along `dim`, at `index` (x's shape, but 1 along `dim`); they alone get the gradient."""

    one_dtype = False

    def __init__(self, kernel: str, dim: int, keepdim: bool):
        self.kernel, self.dim, self.keepdim = kernel, dim, keepdim

    def forward(self, x, index):
        self.shape, self.index = x.shape, index
        return getattr(self.kernels, self.kernel)(x, self.dim, self.keepdim)

    def backward(self, grad):
        k, n = self.kernels, self.shape[self.dim]
        places = k.array(np.arange(n).reshape(n, *(1,) * (len(self.shape) - self.dim - 1)), self.index.dtype)
        return k.masked(k.reshape(grad, self.index.shape), k.equal(places, self.index)), None


def amax(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The largest element over `dim`, or of all; equal ones share the gradient.

    Where it is NaN the elements that are NaN share it; in PyTorch all elements get a gradient of NaN.
    """
    return Extreme("max", _dims_of_some("amax", x, dim), keepdim)(x)


def amin(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`, or of all; equal ones share the gradient.

    Where it is NaN the elements that are NaN share it; in PyTorch all elements get a gradient of NaN.
    """
    return Extreme("min", _dims_of_some("amin", x, dim), keepdim)(x)


def max(x: Tensor, dim: int | Tensor | None = None, keepdim: bool = False):
    """The largest of all elements; with `dim`, the (values, indices) along it; with a tensor, `maximum` of the two.

    Of equal elements along `dim` the first is taken, and alone gets the gradient; over all elements they share it.
    """
    return _extreme("max", maximum, argmax, x, dim, keepdim)


def min(x: Tensor, dim: int | Tensor | None = None, keepdim: bool = False):
    """The smallest of all elements; with `dim`, the (values, indices) along it; with a tensor, `minimum` of the two.

    Of equal elements along `dim` the first is taken, and alone gets the gradient; over all elements they share it.
    """
    return _extreme("min", minimum, argmin, x, dim, keepdim)


def _extreme(kernel, of_two, place, x, dim, keepdim):
    """`max` or `min`; of_two: the function of two tensors. place: that which finds the index."""
    if isinstance(dim, Tensor):
        return of_two(x, dim)
    if dim is None:
        return Extreme(kernel, _dims_of_some(f"a{kernel}", x, None), False)(x)
    dim = one_dim(dim, x.shape)
    if dim is None:  # x has no dimensions
        return ValuesIndices(Extreme(kernel, (), keepdim)(x), place(x))
    index = place(x, dim, keepdim=True)
    values = ExtremeAt(kernel, dim, keepdim)(x, index)
    return ValuesIndices(values, index if keepdim else reshape(index, values.shape))


def _dims_of_some(name: str, x: Tensor, dim) -> tuple[int, ...]:
    """The dimensions to reduce; ValueError if there is nothing along one of them."""
    dims = reduced_dims(dim, x.shape)
    if not all(x.shape[d] for d in dims):
        raise ValueError(
            f"{name} over dims {dims} of a tensor of shape {x.shape}: there are no elements to choose from"
        )
    return dims


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first largest element along `dim`, or in the flattened tensor."""
    return _place("argmax", x, dim, keepdim)


def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first smallest element along `dim`, or in the flattened tensor."""
    return _place("argmin", x, dim, keepdim)


def _place(kernel, x, dim, keepdim):
    k, dim = x.kernels, one_dim(dim, x.shape)
    _dims_of_some(kernel, x, dim)
    index = getattr(k, kernel)(x.data, dim)
    return Tensor(k.reshape(index, shapes.reduced(x.shape, dim, True)) if keepdim else index)


# In order


@along_a_dim
def sort(x: Tensor, dim: int = -1, descending: bool = False) -> ValuesIndices:
    """The elements in ascending or descending order along `dim`, and where they stood; equal ones stay in order."""
    index = argsort(x, dim, descending)
    return ValuesIndices(gather(x, dim, index), index)


@along_a_dim
def argsort(x: Tensor, dim: int = -1, descending: bool = False) -> Tensor:
    """The indices that bring x in order along `dim`; those of equal elements stay in order."""
    return Tensor(x.kernels.argsort(x.data, normalize_dim(dim, x.shape), descending))


@along_a_dim
def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True) -> ValuesIndices:
    """The k largest (or smallest) elements along `dim`, best first, and where they stood; of equal ones the first."""
    dim = normalize_dim(dim, x.shape)
    check_int("k", k)
    if not 0 <= k <= x.shape[dim]:
        raise ValueError(f"topk: k={k} of the {x.shape[dim]} elements along dim {dim} of shape {x.shape}")
    order = argsort(x, dim, largest)
    index = Tensor(x.kernels.index(order.data, (*(slice(None),) * dim, slice(k))))
    return ValuesIndices(gather(x, dim, index), index)
