"""Layers that are one kernel: softmax, cross-entropy, attention weights, dropout, embedding.

Elementwise chains run in blocks that stay in the cache, so that memory is read once and not once for each NumPy call.
Large float32 arrays go to the machine code in compiled.py where that is several times faster.
"""

import numpy as np

from minidl import random
from minidl.kernels.cpu.blocks import compiled, row_blocks, use_compiled
from minidl.kernels.cpu.losses import kept_labels

__all__ = [
    "attention_weights", "attention_weights_grad", "cross_entropy", "cross_entropy_grad", "dropout", "dropout_grad",
    "embedding", "embedding_grad", "log_softmax", "log_softmax_grad", "softmax", "softmax_grad",
]  # fmt: skip


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


def cross_entropy(logits, target, ignore_index):
    """The sum over rows of -log softmax(logits)[target], and the probabilities.

    logits (rows, classes), target (rows,); rows whose target is `ignore_index` do not count.
    """
    rows, classes = logits.shape
    kept, target = kept_labels(target, classes, ignore_index)
    probabilities = np.empty(logits.shape, logits.dtype)
    loss = 0.0
    for part in row_blocks(rows, classes):
        p, t = probabilities[part], target[part]
        np.subtract(logits[part], logits[part].max(axis=1, keepdims=True), out=p)
        chosen = p[np.arange(len(t)), t]
        np.exp(p, out=p)
        total = p.sum(axis=1)
        loss += float(np.sum(np.log(total) - chosen, dtype=np.float64, where=kept[part]))
        p /= total[:, None]
    return np.array(loss, logits.dtype), probabilities


def cross_entropy_grad(grad, probabilities, target, ignore_index, reuse):
    """grad (scalar) times (probabilities - one-hot target), 0 in ignored rows; reuse: in place of `probabilities`."""
    out = probabilities if reuse else probabilities.copy()
    kept = target != ignore_index
    rows = np.flatnonzero(kept)
    out[rows, target[rows]] -= 1
    out *= grad
    if len(rows) < len(target):
        out[~kept] = 0  # also where grad is infinite: the mean of nothing
    return out


# Attention


def attention_weights(scores, scale, is_causal):
    """softmax(scale * scores) over the last dimension; with is_causal query i sees the keys up to i.

    A row of nothing but -inf, a query that sees no key, gives zeros. In place if the scores are contiguous.
    """
    queries, keys = scores.shape[-2:]
    scores = np.ascontiguousarray(scores)
    if use_compiled(scores):
        compiled().attention_weights(scores.reshape(-1, queries, keys), np.float32(scale), is_causal)
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
        compiled().attention_weights_grad(*(x.reshape(-1, shape[-1]) for x in (grad, weights)), np.float32(scale))
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
    mask = random.uniform(x.shape) >= p
    return dropout_grad(x, mask, p), mask


def dropout_grad(grad, mask, p):
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
