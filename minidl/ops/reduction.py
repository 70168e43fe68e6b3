"""Sums, means, variances, products and norms over some dimensions or all; running sums."""

import math
from numbers import Real

import numpy as np

from minidl.creation import tensor
from minidl.double_backward import tensor_kernel
from minidl.kernels import shapes
from minidl.op import Op
from minidl.ops.arithmetic import multiply
from minidl.ops.choice import where
from minidl.ops.elementwise import abs, exp, log
from minidl.ops.extremes import amax, amin
from minidl.ops.promotion import check_floats, floating
from minidl.ops.shape import along_a_dim, expand, movedim, normalize_dim, one_dim, reduced_dims, reshape, unsqueeze
from minidl.tensor import Tensor


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


class Var(Op):
    """The variance over the dimensions `dim`: squares of the distance from the mean, summed, over n - correction."""

    def __init__(self, dim: tuple[int, ...], correction: float, keepdim: bool):
        self.dim, self.correction, self.keepdim = dim, correction, keepdim

    def forward(self, x):
        k, self.x = self.kernels, x
        centered = self.centered()
        squares = k.sum(k.multiply(centered, centered), self.dim, self.keepdim)
        return k.divide(squares, self.freedom())

    def centered(self):
        k = self.kernels
        return k.subtract(self.x, k.divide(k.sum(self.x, self.dim, True), self.count()))

    def count(self) -> int:
        return math.prod(self.x.shape[d] for d in self.dim)

    def freedom(self) -> float:
        count = self.count() - self.correction
        return count if count > 0 else 0

    def backward(self, grad):  # d/dx = 2 (x - mean) / (n - correction)
        k = self.kernels
        grad = k.reshape(grad, shapes.reduced(self.x.shape, self.dim, True))
        return k.multiply(k.divide(k.multiply(grad, 2), self.freedom()), self.centered())


class Std(Var):
    """The square root of the variance; its derivative where it is 0 is 0."""

    def forward(self, x):
        self.y = self.kernels.sqrt(super().forward(x))
        return self.y

    def backward(self, grad):
        k, y = self.kernels, self.y
        return super().backward(k.masked(k.divide(k.multiply(grad, 0.5), y), k.not_equal(y, 0)))


class Prod(Op):
    """The product along `dim`."""

    def __init__(self, dim: int, keepdim: bool):
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x):
        self.x = x
        return self.kernels.prod(x, self.dim, self.keepdim)

    def backward(self, grad):
        k = self.kernels
        return k.prod_grad(k.reshape(grad, shapes.reduced(self.x.shape, self.dim, True)), self.x, self.dim)


@tensor_kernel
def prod_grad(grad, x, dim):
    """grad times the product of all other elements along `dim`, differentiable in both."""
    n, last = x.shape[dim], movedim(x, dim, -1)
    itself = tensor(np.eye(n, dtype=bool), device=x.device)
    others = where(itself, 1.0, expand(unsqueeze(last, -2), *last.shape, n))  # (..., n, n)
    return multiply(grad, movedim(prod(others, -1), -1, dim))


class LogSumExp(Op):
    """log(sum(exp(x))) over the dimensions `dim`, without its overflow."""

    def __init__(self, dim: tuple[int, ...], keepdim: bool):
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x):
        k, self.x = self.kernels, x
        largest = k.max(x, self.dim, True)
        largest = k.where(k.isfinite(largest), largest, 0)
        y = k.add(k.log(k.sum(k.exp(k.subtract(x, largest)), self.dim, True)), largest)
        self.y = k.reshape(y, shapes.reduced(x.shape, self.dim, self.keepdim))
        return self.y

    def backward(self, grad):  # d/dx = exp(x - y), the softmax
        k, kept = self.kernels, shapes.reduced(self.x.shape, self.dim, True)
        return k.multiply(k.reshape(grad, kept), k.exp(k.subtract(self.x, k.reshape(self.y, kept))))


class Norm(Op):
    """(sum |x|^p)^(1/p) over the dimensions `dim`; the derivative is 0 where the norm is, and for p < 1 where x is."""

    def __init__(self, p: float, dim: tuple[int, ...], keepdim: bool):
        self.p, self.dim, self.keepdim = p, dim, keepdim

    def forward(self, x):
        k, p, self.x = self.kernels, self.p, x
        powers = k.multiply(x, x) if p == 2 else k.power(k.absolute(x), p)
        total = k.sum(powers, self.dim, self.keepdim)
        self.y = k.sqrt(total) if p == 2 else k.power(total, 1 / p)
        return self.y

    def backward(self, grad):  # d/dx = sign(x) (|x| / y)^(p - 1)
        k, x, kept = self.kernels, self.x, shapes.reduced(self.x.shape, self.dim, True)
        y = k.reshape(self.y, kept)
        if self.p == 2:
            slope = k.divide(x, y)
        else:
            slope = k.multiply(k.sign(x), k.power(k.divide(k.absolute(x), y), self.p - 1))
        nonzero = k.not_equal(x if self.p < 1 else y, 0)  # small numbers may have a norm of 0
        return k.multiply(k.reshape(grad, kept), k.masked(slope, nonzero))


class CountNonzero(Op):
    """How many elements over the dimensions `dim` are not 0, in the dtype of x; the derivative is 0."""

    def __init__(self, dim: tuple[int, ...], keepdim: bool):
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x):
        k, self.shape = self.kernels, x.shape
        return k.sum(k.cast(k.not_equal(x, 0), x.dtype), self.dim, self.keepdim)

    def backward(self, grad):
        return self.kernels.full(self.shape, 0, grad.dtype)


class CumSum(Op):
    """Running sums along `dim`."""

    def __init__(self, dim: int):
        self.dim = dim

    def forward(self, x):
        return self.kernels.cumsum(x, self.dim)

    def backward(self, grad):
        k, dim = self.kernels, (self.dim,)
        return k.flip(k.cumsum(k.flip(grad, dim), self.dim), dim)


def sum(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """Sum over `dim`, or over all elements; integers and bools give int64."""
    return Sum(None if dim is None else reduced_dims(dim, x.shape), keepdim)(x)


def mean(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """Mean over `dim`, or over all elements; the tensor must be of floats."""
    check_floats("mean", x)
    return Mean(None if dim is None else reduced_dims(dim, x.shape), keepdim)(x)


def var(x: Tensor, dim=None, unbiased: bool | None = None, keepdim: bool = False, *, correction=None) -> Tensor:
    """The variance over `dim`, or of all elements: the sum of squares over n - 1, n if unbiased=False.

    correction: what is taken from n, in the place of unbiased. A bool in the place of `dim`, var(x, False), is
    `unbiased`, over all elements.
    """
    return _spread(Var, "var", x, dim, unbiased, keepdim, correction)


def std(x: Tensor, dim=None, unbiased: bool | None = None, keepdim: bool = False, *, correction=None) -> Tensor:
    """The standard deviation over `dim`, or of all elements: the square root of `var`, which says more."""
    return _spread(Std, "std", x, dim, unbiased, keepdim, correction)


def _spread(op, name, x, dim, unbiased, keepdim, correction):
    check_floats(name, x)
    if isinstance(dim, bool) and unbiased is None:
        dim, unbiased = None, dim
    if unbiased is not None and (correction is not None or not isinstance(unbiased, bool)):
        raise TypeError(f"{name}: unbiased={unbiased!r}, correction={correction!r}: it takes a bool or a correction")
    if correction is None:
        correction = 0 if unbiased is False else 1
    return op(reduced_dims(dim, x.shape), correction, keepdim)(x)


def prod(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The product along `dim`, or of all elements; integers and bools give int64."""
    dim = one_dim(dim, x.shape)
    if dim is None:
        return Prod(0, False)(reshape(x, -1 if x.numel() else 0))
    return Prod(dim, keepdim)(x)


def logsumexp(x: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over `dim`, without its overflow; of no elements it is -inf."""
    x, dims = floating(x), reduced_dims(dim, x.shape)
    if not x.numel():
        return log(Sum(dims, keepdim)(exp(x)))
    return LogSumExp(dims, keepdim)(x)


def norm(x: Tensor, p: float | str = 2, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """(sum |x|^p)^(1/p) over `dim`, or over all elements.

    p: a number above 0; inf for the largest |x|, -inf for the smallest; 0 counts the elements that are not 0; "fro"
    is 2.
    """
    check_floats("norm", x)
    dims, p = reduced_dims(dim, x.shape), 2 if p == "fro" else p
    if not isinstance(p, Real) or p < 0 and not math.isinf(p):
        raise ValueError(f'norm: p={p!r}, it must be 0 or more, inf, -inf or "fro"')
    if math.isinf(p):
        return (amax if p > 0 else amin)(abs(x), dims, keepdim)
    if p == 0:
        return CountNonzero(dims, keepdim)(x)
    return Norm(p, dims, keepdim)(x)


def any(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """Whether an element over `dim`, or of all, is true or not 0."""
    return Tensor(x.kernels.any(x.data, reduced_dims(dim, x.shape), keepdim))


def all(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """Whether all elements over `dim`, or of all, are true or not 0."""
    return Tensor(x.kernels.all(x.data, reduced_dims(dim, x.shape), keepdim))


@tensor_kernel
@along_a_dim
def cumsum(x: Tensor, dim: int) -> Tensor:
    """Running sums along `dim`: element i is the sum of the elements up to i; integers and bools give int64."""
    return CumSum(normalize_dim(dim, x.shape))(x)
