"""Matrix products."""

import math

from minidl.op import Op
from minidl.ops.arithmetic import multiply
from minidl.ops.shape import reshape, unbroadcast
from minidl.tensor import Tensor


class MatMul(Op):
    """C[..., m, n] = A[..., m, k] @ B[..., k, n]; leading dimensions broadcast."""

    splits_backward = True

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        self.a = a if self.needs[1] else None
        self.b = b if self.needs[0] else None
        return self.kernels.matmul(a, b)

    def backward(self, grad):  # grad: (..., m, n)
        k, (a, b) = self.kernels, self.shapes
        grad_a = unbroadcast(k, k.matmul(grad, k.swap_last(self.b)), a) if self.needs[0] else None
        grad_b = unbroadcast(k, k.matmul(k.swap_last(self.a), grad), b) if self.needs[1] else None
        return grad_a, grad_b


class Linear(Op):
    """y[..., out] = x[..., in] @ weight[out, in]^T + bias[out]."""

    splits_backward = True

    def forward(self, x, weight, bias=None):
        self.shape = weight.shape
        self.x = x if self.needs[1] else None
        self.weight = weight if self.needs[0] else None
        return self.kernels.linear(x, weight, bias)

    def backward(self, grad):  # grad: (..., out)
        grad_x = self.input_gradient(grad) if self.needs[0] else None
        grad_weight = self.weight_gradient(grad, self.x) if self.needs[1] else None
        return grad_x, grad_weight, *[self.bias_gradient(grad) if needed else None for needed in self.needs[2:]]

    def input_gradient(self, grad):
        return self.kernels.matmul(grad, self.weight)  # (..., in)

    def weight_gradient(self, grad, x):
        k, (_, in_features) = self.kernels, self.shape
        rows = self._rows(grad)
        return k.matmul(k.swap_last(rows), k.reshape(x, (rows.shape[0], in_features)), self.destination(1))

    def bias_gradient(self, grad):
        return self.kernels.sum(self._rows(grad), (0,), False)

    def _rows(self, grad):
        return self.kernels.reshape(grad, (math.prod(grad.shape[:-1]), self.shape[0]))  # (rows, out)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product over the last two dimensions; a vector is a row on the left and a column on the right."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        raise TypeError(f"matmul needs two tensors, not {type(a).__name__} and {type(b).__name__}")
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape}, both need a dimension at least")
    rows = reshape(a, 1, -1) if a.ndim == 1 else a
    columns = reshape(b, -1, 1) if b.ndim == 1 else b
    if rows.shape[-1] != columns.shape[-2]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not match")
    out = MatMul()(rows, columns)
    if b.ndim == 1:
        out = reshape(out, out.shape[:-1])
    if a.ndim == 1:
        dim = out.ndim - (1 if b.ndim == 1 else 2)
        out = reshape(out, (*out.shape[:dim], *out.shape[dim + 1 :]))
    return out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) @ weight (out, in) transposed + bias (out) -> (..., out)."""
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: the input has shape {x.shape}, its last size must be {weight.shape[1]}")
    rows = reshape(x, 1, -1) if x.ndim == 1 else x
    y = Linear()(rows, weight) if bias is None else Linear()(rows, weight, bias)
    return reshape(y, -1) if x.ndim == 1 else y


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """The products of a batch of matrices: (batch, m, k) times (batch, k, n) -> (batch, m, n)."""
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise ValueError(f"bmm needs (batch, m, k) and (batch, k, n), not {a.shape} and {b.shape}")
    return MatMul()(a, b)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the products of two vectors of one size."""
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"dot needs two vectors of one size, not {a.shape} and {b.shape}")
    return matmul(a, b)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """The products of all elements of the vector a (n,) with all of b (m,) -> (n, m)."""
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"outer needs two vectors, not {a.shape} and {b.shape}")
    return multiply(reshape(a, -1, 1), b)
