"""Sums, means and maxima over some dimensions or all."""

import numpy as np

from minidl.kernels import shapes
from minidl.ops.shape import normalize_dim, reshape
from minidl.tensor import Op, Tensor


class Sum(Op):
    """Sum over the dimensions `dim` (a tuple; None for all)."""

    def __init__(self, dim, keepdim: bool):
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x):
        self.shape = x.shape
        return self.kernels.sum(x, self.dim, self.keepdim)

    def backward(self, grad):
        # A real copy: a matrix product with the stretched view itself would leave the BLAS.
        k = self.kernels
        grad = k.reshape(grad, shapes.reduced(self.shape, self.dim, True))
        return k.copy(k.broadcast_to(grad, self.shape))


class Mean(Sum):
    """Mean over the dimensions `dim` (a tuple; None for all)."""

    def forward(self, x):
        total = super().forward(x)
        self.count = x.size // total.size if total.size else 1
        return self.kernels.divide(total, self.count)

    def backward(self, grad):
        return super().backward(self.kernels.divide(grad, self.count))


class Max(Op):
    """The largest element over the dimensions `dim`; equal ones share the gradient, if some are NaN then these do."""

    def __init__(self, dim, keepdim: bool):
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x):
        self.x, self.y = x, self.kernels.max(x, self.dim, self.keepdim)
        return self.y

    def backward(self, grad):
        k = self.kernels
        y = k.reshape(self.y, shapes.reduced(self.x.shape, self.dim, True))
        largest = k.logical_or(k.equal(self.x, y), k.isnan(self.x))
        count = k.cast(k.sum(largest, self.dim, True), grad.dtype)
        return k.masked(k.divide(k.reshape(grad, y.shape), count), largest)


class MaxAt(Op):
    """The largest element along `dim`, at `index` (x's shape, but 1 along `dim`); it alone gets the gradient."""

    one_dtype = False

    def __init__(self, dim: int, keepdim: bool):
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x, index):
        self.shape, self.index = x.shape, index
        return self.kernels.max(x, self.dim, self.keepdim)

    def backward(self, grad):
        k, n = self.kernels, self.shape[self.dim]
        places = k.array(np.arange(n).reshape(n, *(1,) * (len(self.shape) - self.dim - 1)), self.index.dtype)
        return k.masked(k.reshape(grad, self.index.shape), k.equal(places, self.index)), None


def _dims(dim, shape):
    if dim is None:
        return None
    return tuple(normalize_dim(d, shape) for d in ((dim,) if isinstance(dim, int) else dim))


def sum(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """Sum over `dim`, or over all elements; integers and bools give int64."""
    return Sum(_dims(dim, x.shape), keepdim)(x)


def mean(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """Mean over `dim`, or over all elements; the tensor must be of floats."""
    if x.dtype.kind != "f":
        raise TypeError(f"mean needs floats, the tensor has dtype {x.dtype}: convert with .to(minidl.float32)")
    return Mean(_dims(dim, x.shape), keepdim)(x)


def amax(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The largest element over `dim`, or of all; equal ones share the gradient.

    Where it is NaN the elements that are NaN share it; in PyTorch all elements get a gradient of NaN.
    """
    return Max(_dims(dim, x.shape), keepdim)(x)


def max(x: Tensor, dim: int | None = None, keepdim: bool = False):
    """The largest of all elements; with `dim`, the pair (values, indices) along it, as in PyTorch.

    Of equal elements along `dim` the first is taken, and alone gets the gradient; over all elements they share it.
    """
    if dim is None:
        return amax(x)
    dim = normalize_dim(dim, x.shape)
    index = argmax(x, dim, keepdim=True)
    values = MaxAt(dim, keepdim)(x, index)
    return values, index if keepdim else reshape(index, values.shape)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first largest element along `dim`, or in the flattened tensor."""
    if dim is None:
        return Tensor(x.kernels.argmax(x.data, None))
    dim = normalize_dim(dim, x.shape)
    index = x.kernels.argmax(x.data, dim)
    return Tensor(x.kernels.reshape(index, shapes.reduced(x.shape, dim, True)) if keepdim else index)
