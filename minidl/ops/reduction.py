"""Sums, means and maxima over some dimensions or all."""

from minidl.kernels import shapes
from minidl.ops.shape import normalize_dim
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
    """The largest element over the dimensions `dim`; equal ones share the gradient."""

    def __init__(self, dim, keepdim: bool):
        self.dim, self.keepdim = dim, keepdim

    def forward(self, x):
        self.x, self.y = x, self.kernels.max(x, self.dim, True)
        return self.kernels.reshape(self.y, shapes.reduced(x.shape, self.dim, self.keepdim))

    def backward(self, grad):
        k = self.kernels
        largest = k.cast(k.equal(self.x, self.y), grad.dtype)
        share = k.divide(k.reshape(grad, self.y.shape), k.sum(largest, self.dim, True))
        return k.multiply(largest, share)


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
    """The largest element over `dim`, or of all."""
    return Max(_dims(dim, x.shape), keepdim)(x)


def max(x: Tensor, dim: int | None = None, keepdim: bool = False):
    """The largest of all elements; with `dim`, the pair (values, indices) along it, as in PyTorch."""
    if dim is None:
        return amax(x)
    return amax(x, dim, keepdim), argmax(x, dim, keepdim)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first largest element along `dim`, or in the flattened tensor."""
    if dim is None:
        return Tensor(x.kernels.argmax(x.data, None))
    dim = normalize_dim(dim, x.shape)
    index = x.kernels.argmax(x.data, dim)
    return Tensor(x.kernels.reshape(index, shapes.reduced(x.shape, dim, True)) if keepdim else index)
