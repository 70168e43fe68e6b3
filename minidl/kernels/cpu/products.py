"""Matrix products, cut over threads where they are large."""

import math

import numpy as np

from minidl.kernels.cpu.blocks import thread_rows
from minidl.kernels.cpu.threads import split

__all__ = ["linear", "matmul"]

FEW_ROWS = 128
OWN_THREAD = 1 << 21  # multiplications that are worth a thread of their own


def matmul(a, b, out=None):
    """a (..., m, k) times b (..., k, n); leading dimensions broadcast. out: where the result is written, if given."""
    if b.ndim == 2 and a.ndim > 2:  # one large product instead of many small ones
        rows = math.prod(a.shape[:-1])
        return matmul(a.reshape(rows, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    *matrices, m, k = a.shape
    n = b.shape[-1]
    if matrices != list(b.shape[:-2]) or math.prod(matrices) * m * k * n < 2 * OWN_THREAD:
        return np.matmul(a, b, out=out)
    if out is None:
        out = np.empty((*matrices, m, n), np.result_type(a, b))
    if matrices:
        split(len(a), lambda part: np.matmul(a[part], b[part], out=out[part]))
    elif m >= n:
        split(m, lambda part: np.matmul(a[part], b, out=out[part]), thread_rows(k * n, OWN_THREAD))
    else:
        split(n, lambda part: np.matmul(a, b[:, part], out=out[:, part]), thread_rows(m * k, OWN_THREAD))
    return out


def linear(x, weight, bias):
    """x (..., in) times weight (out, in) transposed, plus bias (out) or None -> (..., out)."""
    rows, out_features = math.prod(x.shape[:-1]), len(weight)
    x2 = x.reshape(rows, x.shape[-1])
    y = np.empty((rows, out_features), x.dtype)

    def by_features(part):
        # BLAS packs the weight for either product; the transposed one is a tenth to a third faster for so few rows.
        y[:, part] = np.matmul(weight[part], x2.T).T
        if bias is not None:
            y[:, part] += bias[part]

    def by_rows(part):
        np.matmul(x2[part], weight.T, out=y[part])
        if bias is not None:
            y[part] += bias

    if 0 < rows <= FEW_ROWS and 2 * rows <= out_features:
        split(out_features, by_features, thread_rows(x2.size, OWN_THREAD))
    else:
        split(rows, by_rows, thread_rows(weight.size, OWN_THREAD))
    return y.reshape(*x.shape[:-1], out_features)
