"""Matrix products: shapes and costs."""

import math

from minidl.kernels.memory_order import broadcast
from minidl.kernels.meta.arrays import swap_last
from minidl.kernels.meta.record import in_place, result

__all__ = ["linear", "matmul"]


def matmul(a, b, out=None):
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not match")
    leading = broadcast(a.shape[:-2], b.shape[:-2])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    batch = math.prod(leading)
    if b.ndim == 2:  # one product, whatever the number of rows
        m, batch = m * batch, 1
    product = result("matmul", (a, b), (*leading, a.shape[-2], n), a.dtype,
                     flops=2 * batch * m * n * k, shapes=((batch, m, n, k),), kind="product",
                     options=(_letter(a) + _letter(b), False))  # fmt: skip
    return product if out is None else out


def _letter(x):
    """T for a matrix whose columns lie together in memory instead of its rows."""
    return "T" if not x.contiguous and x.strides[-1] > 1 and x.strides[-2] <= 1 else "N"


def linear(x, weight, bias):
    y = matmul(x, swap_last(weight))
    if bias is not None:
        in_place("accumulate", y, (y, bias), y.size)
    return y
