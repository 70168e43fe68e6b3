"""Softmax, its logarithm, and attention weights, with their gradients."""

import numpy as np

from minidl.kernels.cpu import fast

__all__ = [
    "attention_weights", "attention_weights_grad", "log_softmax", "log_softmax_grad", "softmax", "softmax_grad",
]  # fmt: skip


def softmax(x, dim):
    """exp(x) / sum(exp(x)) along `dim`, in x's shape; a NaN, or an infinity, spoils what is along it."""
    y = np.exp(x - x.max(axis=dim, keepdims=True, initial=-np.inf))
    y /= y.sum(axis=dim, keepdims=True)
    return y


def softmax_grad(grad, y, dim):
    """The gradient of x, given that of y, the result of softmax."""
    out = grad * y
    out -= y * out.sum(axis=dim, keepdims=True)
    return out


def log_softmax(x, dim):
    """x - log(sum(exp(x))) along `dim`, in x's shape."""
    y = x - x.max(axis=dim, keepdims=True, initial=-np.inf)
    y -= np.log(np.exp(y).sum(axis=dim, keepdims=True))
    return y


def log_softmax_grad(grad, y, dim):
    """The gradient of x, given that of y, the result of log_softmax."""
    out = np.exp(y)
    out *= -grad.sum(axis=dim, keepdims=True)
    out += grad
    return out


def attention_weights(scores, scale, is_causal, window=None):
    """softmax(scale * scores) over the last dimension of (..., queries, keys); is_causal: query i sees keys up to i.

    window: of these it sees no more than so many, the last ones; None for all. A row of nothing but -inf, a query that
    sees no key, gives zeros. In place if the scores are contiguous.
    """
    scores = np.ascontiguousarray(scores)
    if fast.use_compiled(scores):
        return fast.softmax.attention_weights(scores, scale, is_causal, window)
    scores *= scale
    if is_causal:
        scores += np.triu(np.full(scores.shape[-2:], -np.inf, scores.dtype), 1)
    if window is not None:
        scores += np.tril(np.full(scores.shape[-2:], -np.inf, scores.dtype), -window)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)  # (..., queries, 1)
    scores -= np.where(top == -np.inf, 0, top)
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)  # (..., queries, 1)
    scores /= np.where(total == 0, 1, total)
    return scores


def attention_weights_grad(grad, weights, scale):
    """The gradient of the scores (..., queries, keys), in place of `grad` if it is contiguous."""
    grad = np.ascontiguousarray(grad)
    if fast.use_compiled(grad):
        return fast.softmax.attention_weights_grad(grad, weights, scale)
    grad *= weights
    grad -= weights * grad.sum(axis=-1, keepdims=True)
    grad *= scale
    return grad
