"""Layers that are one kernel: softmax, attention weights, dropout, embedding.

Elementwise chains run in blocks that stay in the cache, so that memory is read once and not once for each NumPy call.
Large float32 arrays go to the machine code in compiled.py where that is several times faster.
"""

import math

import numpy as np

from minidl import random
from minidl.kernels.cpu.blocks import THREAD, compiled, compiled_masks, row_blocks, thread_rows, use_compiled
from minidl.kernels.cpu.threads import split

__all__ = [
    "attention_weights", "attention_weights_grad", "dropout", "dropout_grad",
    "embedding", "embedding_grad", "log_softmax", "log_softmax_grad", "softmax", "softmax_grad",
]  # fmt: skip

MASKS_COMPILED_FROM = 1 << 13  # elements: NumPy takes 20 times as long to draw them


# Softmax


def softmax(x, dim):
    """exp(x) / sum(exp(x)) along `dim`."""
    y = np.exp(x - x.max(axis=dim, keepdims=True, initial=-np.inf))
    y /= y.sum(axis=dim, keepdims=True)
    return y


def softmax_grad(grad, y, dim):
    """`y` is the result of softmax."""
    out = grad * y
    out -= y * out.sum(axis=dim, keepdims=True)
    return out


def log_softmax(x, dim):
    y = x - x.max(axis=dim, keepdims=True, initial=-np.inf)
    y -= np.log(np.exp(y).sum(axis=dim, keepdims=True))
    return y


def log_softmax_grad(grad, y, dim):
    """`y` is the result of log_softmax."""
    out = np.exp(y)
    out *= -grad.sum(axis=dim, keepdims=True)
    out += grad
    return out


# Attention


def attention_weights(scores, scale, is_causal):
    """softmax(scale * scores) over the last dimension; with is_causal query i sees the keys up to i.

    A row of nothing but -inf, a query that sees no key, gives zeros. In place if the scores are contiguous.
    """
    queries, keys = scores.shape[-2:]
    scores = np.ascontiguousarray(scores)
    if use_compiled(scores):
        s, scale = scores.reshape(-1, queries, keys), np.float32(scale)
        least = thread_rows(queries * keys)
        split(len(s), lambda part: compiled().attention_weights(s[part], scale, is_causal), least)
        return scores
    future = np.triu(np.full((queries, keys), -np.inf, scores.dtype), 1) if is_causal else None
    matrices = scores.reshape(-1, queries, keys) if scores.size else scores[:0]
    for part in row_blocks(len(matrices), queries * keys):
        s = matrices[part]
        s *= scale
        if is_causal:
            s += future
        top = s.max(axis=-1, keepdims=True)
        top[top == -np.inf] = 0
        s -= top
        np.exp(s, out=s)
        total = s.sum(axis=-1, keepdims=True)
        total[total == 0] = 1
        s /= total
    return scores


def attention_weights_grad(grad, weights, scale):
    """The gradient of the scores, in place of `grad` if it is contiguous."""
    shape = grad.shape
    grad = np.ascontiguousarray(grad)
    if use_compiled(grad):
        g, w, scale = grad.reshape(-1, shape[-1]), weights.reshape(-1, shape[-1]), np.float32(scale)
        least = thread_rows(shape[-1])
        split(len(g), lambda part: compiled().attention_weights_grad(g[part], w[part], scale), least)
        return grad
    grads, weights = (x.reshape(-1, *shape[-2:]) if x.size else x[:0] for x in (grad, weights))
    for part in row_blocks(len(grads), shape[-2] * shape[-1]):
        g, w = grads[part], weights[part]
        g *= w
        g -= w * g.sum(axis=-1, keepdims=True)
        g *= scale
    return grad


# Dropout and embedding


def dropout(x, p):
    """-> x without a random fraction p of its elements, the rest divided by 1 - p; and the mask of the rest (bool)."""
    mask = random_mask(x.shape, p)
    return dropout_grad(x, mask, p), mask


def random_mask(shape, p):
    """Where `random.uniform(shape)` is p or more."""
    return random.drawn(shape, lambda piece, s: _mask_of(piece, s, p))


def _mask_of(shape, s, p):
    """Where `random.uniform_of(shape, s)` is p or more."""
    if math.prod(shape) < MASKS_COMPILED_FROM:
        return random.uniform_of(shape, s) >= p
    first, skipped = divmod(s.start, 4)
    counters = -(-(skipped + s.per_sample) // 4)
    mask = np.empty((len(s.samples), 4 * counters), bool)
    key = np.uint32(s.step), *s.key_words, np.float32(p)
    draw = compiled_masks().random_mask

    def rows(part):
        draw(mask[part], first, s.samples[part], *key)

    def columns(part):
        draw(mask[:, 4 * part.start : 4 * part.stop], first + part.start, s.samples, *key)

    if len(mask) > 1:
        split(len(mask), rows, thread_rows(s.per_sample))
    else:
        split(counters, columns, thread_rows(4))
    return np.ascontiguousarray(mask[:, skipped : skipped + s.per_sample]).reshape(shape)


def dropout_grad(grad, mask, p):
    if use_compiled(grad) and grad.flags.c_contiguous:
        out = np.empty_like(grad)
        g, m, o = grad.reshape(-1), mask.reshape(-1), out.reshape(-1)
        scale, kernel = np.float32(1 / (1 - p)), compiled_masks().dropout_grad
        split(len(g), lambda part: kernel(g[part], m[part], scale, o[part]), THREAD)
        return out
    out = grad * mask
    out *= 1 / (1 - p)
    return np.asarray(out)


def embedding(weight, indices):
    """weight (rows, width), indices (...) of int64 -> (..., width)."""
    if indices.size and not 0 <= indices.min() <= indices.max() < len(weight):
        raise ValueError(
            f"embedding: indices lie in [{indices.min()}, {indices.max()}], the table has rows [0, {len(weight)})"
        )
    return weight[indices]


def embedding_grad(grad, indices, rows):
    """Sum the rows of grad (..., width) by index -> (rows, width)."""
    flat = indices.reshape(-1)
    out = np.zeros((rows, grad.shape[-1]), grad.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        sorted_indices = flat[order]
        starts = np.flatnonzero(np.diff(sorted_indices, prepend=-1))
        out[sorted_indices[starts]] = np.add.reduceat(grad.reshape(flat.size, -1)[order], starts, axis=0)
    return out
