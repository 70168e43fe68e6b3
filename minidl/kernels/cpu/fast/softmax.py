"""The attention weights of softmax.py compiled, for float32: one pass over memory where NumPy needs ten.

`nnan` is allowed only where a maximum is taken: a NaN must come out of a kernel as a NaN.
"""

import numpy as np

from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.exponential import ONE, exp
from minidl.kernels.cpu.fast.threads import split, thread_rows

MINUS_INFINITY = np.float32(-np.inf)


def attention_weights(scores, scale, is_causal, window):
    """In place of the contiguous scores."""
    queries, keys = scores.shape[-2:]
    s, scale, window = scores.reshape(-1, queries, keys), np.float32(scale), queries if window is None else window
    split(len(s), lambda part: weights_of(s[part], scale, is_causal, window), thread_rows(queries * keys))
    return scores


def attention_weights_grad(grad, weights, scale):
    """In place of the contiguous grad."""
    width = grad.shape[-1]
    g, w, scale = grad.reshape(-1, width), weights.reshape(-1, width), np.float32(scale)
    split(len(g), lambda part: scores_gradient(g[part], w[part], scale), thread_rows(width))
    return grad


@njit(fastmath=FLAGS | {"nnan"})
def largest(row, end):
    m = MINUS_INFINITY
    for j in range(end):
        m = row[j] if row[j] > m else m
    return m


@njit(fastmath=FLAGS)
def weights_of(scores, scale, is_causal, window):
    """softmax(scale * scores), in place of scores (matrices, queries, keys)."""
    matrices, queries, keys = scores.shape
    for m in range(matrices):
        for i in range(queries):
            row = scores[m, i]
            start, end = max(0, i + 1 - window), min(i + 1, keys) if is_causal else keys
            top = largest(row[start:], end - start) * scale
            sees = top != MINUS_INFINITY
            top = top if sees else np.float32(0)
            total = np.float32(0)
            for j in range(start, end):
                e = exp(row[j] * scale - top)
                row[j] = e
                total += e
            inverse = ONE / total if sees else np.float32(0)
            for j in range(start, end):
                row[j] *= inverse
            row[:start] = 0
            row[end:] = 0


@njit(fastmath=FLAGS)
def scores_gradient(grad, weights, scale):
    """The gradient of the scores, in place of grad; grad and weights (rows, keys)."""
    for i in range(len(grad)):
        g, w = grad[i], weights[i]
        along = np.float32(0)
        for j in range(len(g)):
            along += g[j] * w[j]
        for j in range(len(g)):
            g[j] = (g[j] - along) * w[j] * scale
