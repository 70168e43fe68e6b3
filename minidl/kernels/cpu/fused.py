"""Layers that are one kernel: softmax, cross-entropy, layer norm, GELU, attention weights, dropout, embedding.

Elementwise chains run in blocks that stay in the cache, so that memory is read once and not once for each NumPy call.
"""

import functools
import math

import numpy as np

from minidl import random

__all__ = [
    "attention_weights", "attention_weights_grad", "cross_entropy", "cross_entropy_grad", "dropout", "dropout_grad",
    "embedding", "embedding_grad", "gelu", "gelu_grad", "layer_norm", "layer_norm_grad", "log_softmax",
    "log_softmax_grad", "softmax", "softmax_grad",
]  # fmt: skip

BLOCK = 16384  # elements


def _row_blocks(rows, width):
    """Slices that cover `rows` rows of `width` elements, about BLOCK elements each."""
    step = max(1, BLOCK // max(1, width))
    return (slice(start, start + step) for start in range(0, rows, step))


# Softmax


def softmax(x, dim):
    """exp(x) / sum(exp(x)) along `dim`."""
    y = np.exp(x - x.max(axis=dim, keepdims=True))
    y /= y.sum(axis=dim, keepdims=True)
    return y


def softmax_grad(grad, y, dim):
    """`y` is the result of softmax."""
    out = grad * y
    out -= y * out.sum(axis=dim, keepdims=True)
    return out


def log_softmax(x, dim):
    y = x - x.max(axis=dim, keepdims=True)
    y -= np.log(np.exp(y).sum(axis=dim, keepdims=True))
    return y


def log_softmax_grad(grad, y, dim):
    """`y` is the result of log_softmax."""
    out = np.exp(y)
    out *= -grad.sum(axis=dim, keepdims=True)
    out += grad
    return out


def cross_entropy(logits, target):
    """logits (rows, classes), target (rows,) -> the sum over rows of -log softmax[target], and the probabilities."""
    rows, classes = logits.shape
    if rows and not 0 <= target.min() <= target.max() < classes:
        raise ValueError(
            f"cross_entropy: targets lie in [{target.min()}, {target.max()}], the classes in [0, {classes})"
        )
    probabilities = np.empty(logits.shape, logits.dtype)
    loss = 0.0
    for part in _row_blocks(rows, classes):
        p, t = probabilities[part], target[part]
        np.subtract(logits[part], logits[part].max(axis=1, keepdims=True), out=p)
        chosen = p[np.arange(len(t)), t]
        np.exp(p, out=p)
        total = p.sum(axis=1)
        loss += float(np.sum(np.log(total) - chosen, dtype=np.float64))
        p /= total[:, None]
    return np.array(loss, logits.dtype), probabilities


def cross_entropy_grad(grad, probabilities, target):
    """grad (scalar) times (probabilities - one-hot target), in place of `probabilities`."""
    probabilities[np.arange(len(target)), target] -= 1
    probabilities *= grad
    return probabilities


# Attention


def attention_weights(scores, scale, is_causal):
    """softmax(scale * scores) over the last dimension, in place; with is_causal query i sees the keys up to i."""
    queries, keys = scores.shape[-2:]
    future = np.triu(np.full((queries, keys), -np.inf, scores.dtype), 1) if is_causal else None
    matrices = scores.reshape(-1, queries, keys) if scores.size else scores[:0]
    for part in _row_blocks(len(matrices), queries * keys):
        s = matrices[part]
        s *= scale
        if is_causal:
            s += future
        s -= s.max(axis=-1, keepdims=True)
        np.exp(s, out=s)
        s /= s.sum(axis=-1, keepdims=True)
    return scores


def attention_weights_grad(grad, weights, scale):
    """The gradient of the scores, in place of `grad`."""
    shape = grad.shape
    grads, weights = (x.reshape(-1, *shape[-2:]) if x.size else x[:0] for x in (grad, weights))
    for part in _row_blocks(len(grads), shape[-2] * shape[-1]):
        g, w = grads[part], weights[part]
        g *= w
        g -= w * g.sum(axis=-1, keepdims=True)
        g *= scale
    return grad


# Layer norm


def layer_norm(x, weight, bias, eps):
    """x (rows, width), weight and bias (width,) -> y (rows, width), mean (rows, 1), 1/standard deviation (rows, 1)."""
    rows, width = x.shape
    y = np.empty(x.shape, x.dtype)
    mean, inverse = np.empty((rows, 1), x.dtype), np.empty((rows, 1), x.dtype)
    for part in _row_blocks(rows, width):
        out = y[part]
        x[part].mean(axis=1, keepdims=True, out=mean[part])
        np.subtract(x[part], mean[part], out=out)
        variance = np.einsum("rw,rw->r", out, out)[:, None] / width
        np.divide(1, np.sqrt(variance + eps), out=inverse[part])
        out *= inverse[part]
        out *= weight
        out += bias
    return y, mean, inverse


def layer_norm_grad(grad, x, mean, inverse, weight):
    """The gradients of x (rows, width), weight (width,) and bias (width,)."""
    rows, width = x.shape
    grad_x = np.empty(x.shape, x.dtype)
    grad_weight, grad_bias = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    for part in _row_blocks(rows, width):
        g, out = grad[part], grad_x[part]
        normal = (x[part] - mean[part]) * inverse[part]
        grad_bias += g.sum(axis=0)
        grad_weight += np.einsum("rw,rw->w", g, normal)
        np.multiply(g, weight, out=out)
        along = np.einsum("rw,rw->r", out, normal)[:, None] / width
        out -= out.mean(axis=1, keepdims=True)
        normal *= along
        out -= normal
        out *= inverse[part]
    return grad_x, grad_weight, grad_bias


# GELU


def gelu(x, approximate):
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016); approximate: "none" or "tanh"."""
    return _blockwise(_gelu_tanh if approximate == "tanh" else _gelu_erf, x)


def gelu_grad(grad, x, approximate):
    return _blockwise(_gelu_tanh_grad if approximate == "tanh" else _gelu_erf_grad, x, grad)


def _blockwise(function, x, *others):
    """function(block of x, blocks of others) over the flat arrays, as an array shaped like x."""
    flat = [np.ravel(array) for array in (x, *others)]
    y = np.empty(x.size, x.dtype)
    for start in range(0, y.size, BLOCK):
        part = slice(start, start + BLOCK)
        y[part] = function(*(array[part] for array in flat))
    return y.reshape(x.shape)


ROOT_2_OVER_PI = math.sqrt(2 / math.pi)


def _gelu_tanh(x):
    t = x * x
    t *= 0.044715 * ROOT_2_OVER_PI
    t += ROOT_2_OVER_PI
    t *= x
    np.tanh(t, out=t)
    t += 1
    t *= x
    t *= 0.5
    return t


def _gelu_tanh_grad(x, grad):
    square = x * x
    inner = square * (0.044715 * ROOT_2_OVER_PI)
    inner += ROOT_2_OVER_PI
    inner *= x
    t = np.tanh(inner, out=inner)
    slope = square * (3 * 0.044715 * ROOT_2_OVER_PI)
    slope += ROOT_2_OVER_PI
    slope *= x
    slope *= 1 - t * t
    slope += t
    slope += 1
    slope *= 0.5
    slope *= grad
    return slope


def _gelu_erf(x):
    y = erf(x * math.sqrt(0.5))
    y += 1
    y *= x
    y *= 0.5
    return y


def _gelu_erf_grad(x, grad):
    density = np.exp(x * x * -0.5)
    density *= x
    density *= 1 / math.sqrt(2 * math.pi)
    density += (erf(x * math.sqrt(0.5)) + 1) * 0.5
    density *= grad
    return density


def erf(x):
    """The error function, which NumPy lacks: within 1e-7 (float32) or 1e-15 (float64)."""
    size = np.minimum(np.abs(x), ERF_RANGE)
    t = 2 / (2 + size)
    tail = t * np.exp(_erfc_polynomial(x.dtype.name)(t) - size * size)  # erfc(|x|)
    return np.copysign(1 - tail, x)


ERF_RANGE = 6.0  # erf is 1 beyond, to 16 digits


@functools.cache
def _erfc_polynomial(dtype):
    """p with erfc(z) = t exp(p(t) - z^2), t = 2 / (2 + z), z in [0, ERF_RANGE]: interpolated at Chebyshev points."""

    def exact(t):
        z = 2 / t - 2
        return np.array([math.log(math.erfc(a) / b) + a * a for a, b in zip(z, t, strict=True)])

    domain = [2 / (2 + ERF_RANGE), 1]
    series = np.polynomial.Chebyshev.interpolate(exact, 10 if dtype == "float32" else 24, domain)
    coefficients = series.coef.astype(dtype)
    offset, scale = series.mapparms()

    def polynomial(t):  # Clenshaw's recurrence
        u = (t * scale + offset).astype(dtype)
        b, b_next = np.zeros_like(u), np.zeros_like(u)
        for c in coefficients[:0:-1]:
            b, b_next = c + 2 * u * b - b_next, b
        return coefficients[0] + u * b - b_next

    return polynomial


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
