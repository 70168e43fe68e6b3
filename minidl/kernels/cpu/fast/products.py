"""Matrix products cut over threads, and turned where the BLAS is quicker so."""

import math

import numpy as np

from minidl.kernels.cpu.fast.threads import split, thread_rows

FEW_ROWS = 128
OWN_THREAD = 1 << 21  # multiplications that are worth a thread of their own
LONG = 1 << 15  # multiplications from which a product takes longer than the choice of its form


def worth_threads(a, b) -> bool:
    """Whether a (..., m, k) times b (..., k, n), of equal leading dimensions, is worth two threads."""
    return a.shape[:-2] == b.shape[:-2] and a.size * b.shape[-1] >= 2 * OWN_THREAD


def matmul(a, b, out=None):
    """a (..., m, k) times b (..., k, n), of equal leading dimensions. out: where the result is written, if given."""
    *matrices, m, k = a.shape
    n = b.shape[-1]
    if out is None:
        out = np.empty((*matrices, m, n), np.result_type(a, b))
    if matrices:
        split(len(a), lambda part: np.matmul(a[part], b[part], out=out[part]))
    elif m >= n:
        split(m, lambda part: np.matmul(a[part], b, out=out[part]), thread_rows(k * n, OWN_THREAD))
    else:
        split(n, lambda part: np.matmul(a, b[:, part], out=out[:, part]), thread_rows(m * k, OWN_THREAD))
    return out


def is_long(rows: int, weight) -> bool:
    """Whether the product of so many rows with a weight (out, in) is worth a thought about its form."""
    return rows * math.prod(weight.shape) >= LONG


def linear(x, weight, bias):
    """x (rows, in) times weight (out, in) transposed, plus bias (out) or None -> (rows, out)."""
    rows, out_features = len(x), len(weight)
    y = np.empty((rows, out_features), x.dtype)

    def by_features(part):
        # BLAS packs the weight for either product; the transposed one is a tenth to a third faster for so few rows.
        y[:, part] = np.matmul(weight[part], x.T).T
        if bias is not None:
            y[:, part] += bias[part]

    def by_rows(part):
        np.matmul(x[part], weight.T, out=y[part])
        if bias is not None:
            y[part] += bias

    if rows <= FEW_ROWS and 2 * rows <= out_features:
        split(out_features, by_features, thread_rows(x.size, OWN_THREAD))
    else:
        split(rows, by_rows, thread_rows(weight.size, OWN_THREAD))
    return y
