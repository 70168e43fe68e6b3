"""Matrix products: NumPy's, which are the BLAS's, and over threads where they are large."""

import math

import numpy as np

from minidl.kernels.cpu import fast

__all__ = ["linear", "matmul"]


def matmul(a, b, out=None):
    """a (..., m, k) times b (..., k, n); leading dimensions broadcast. out: where the result is written, if given."""
    if b.ndim == 2 and a.ndim > 2:  # one large product instead of many small ones
        rows = math.prod(a.shape[:-1])
        return matmul(a.reshape(rows, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    if fast.products.worth_threads(a, b):
        return fast.products.matmul(a, b, out)
    return np.matmul(a, b, out=out)


def linear(x, weight, bias):
    """x (..., in) times weight (out, in) transposed, plus bias (out) or None -> (..., out)."""
    rows, out_features = math.prod(x.shape[:-1]), len(weight)
    x2 = x.reshape(rows, x.shape[-1])
    if fast.products.is_long(rows, weight):
        y = fast.products.linear(x2, weight, bias)
    else:
        y = x2 @ weight.T
        if bias is not None:
            y += bias
    return y.reshape(*x.shape[:-1], out_features)
