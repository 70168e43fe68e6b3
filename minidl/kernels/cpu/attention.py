"""Attention in tiles of keys, whose scores are made, used and forgotten: what the GPU does, to be read and compared.

The ops of the CPU keep the attention weights instead: NumPy gains nothing by tiles.
"""

import numpy as np

from minidl.kernels import algorithms

__all__ = ["WIDEST_IN_TILES", "attention", "attention_grad"]

WIDEST_IN_TILES = algorithms.WIDEST_IN_TILES["cpu"]
TILE = 64  # keys


def attention(q, k, v, scale, is_causal):
    """softmax(scale Q K^T) V and, for each query, the logarithm of the sum of exp(scale Q K^T).

    q (..., queries, width), k (..., keys, width), v (..., keys, values), whose leading dimensions broadcast; causal:
    query i sees the keys up to i. A query that sees no key gets zeros, and -inf.

    One pass over the keys (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1): of each query are known the
    largest score so far, and the sum of the exponentials and of the values they weigh, both divided by exp(largest).
    When a larger score comes, they shrink.
    """
    heads = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
    queries, keys = q.shape[-2], k.shape[-2]
    largest = np.full((*heads, queries, 1), -np.inf, q.dtype)
    total, out = np.zeros_like(largest), np.zeros((*heads, queries, v.shape[-1]), q.dtype)
    for part in _tiles(keys):
        scores = _scores(q, k, scale, is_causal, part)
        before = largest
        largest = np.maximum(before, scores.max(axis=-1, keepdims=True))
        base = np.where(largest == -np.inf, 0, largest)
        shrink, weights = np.exp(before - base), np.exp(scores - base)
        total = total * shrink + weights.sum(axis=-1, keepdims=True)
        out = out * shrink + weights @ v[..., part, :]
    seen = total > 0
    out /= np.where(seen, total, 1)
    log_sum_exp = np.where(seen, largest + np.log(np.where(seen, total, 1)), -np.inf)[..., 0]
    return out.astype(q.dtype, copy=False), log_sum_exp.astype(q.dtype, copy=False)


def attention_grad(grad, q, k, v, out, log_sum_exp, scale, is_causal):
    """The gradients of q, k and v, each with the leading dimensions of `out`; the last two of forward are its own.

    The weights are made again, exp(score - log_sum_exp), a tile of keys at a time. The part of a score's gradient that
    all keys of a query share, the sum of weight * gradient of weight, is the sum of grad * out (section 3.1).
    """
    heads = out.shape[:-2]
    grad_q, grad_k, grad_v = (np.zeros((*heads, *x.shape[-2:]), x.dtype) for x in (q, k, v))
    along = (grad * out).sum(axis=-1, keepdims=True)
    base = np.where(log_sum_exp == -np.inf, 0, log_sum_exp)[..., None]
    for part in _tiles(k.shape[-2]):
        weights = np.exp(_scores(q, k, scale, is_causal, part) - base)
        grad_weights = grad @ np.swapaxes(v[..., part, :], -1, -2)
        grad_scores = weights * (grad_weights - along) * grad.dtype.type(scale)
        grad_v[..., part, :] = np.swapaxes(weights, -1, -2) @ grad
        grad_k[..., part, :] = np.swapaxes(grad_scores, -1, -2) @ q
        grad_q += grad_scores @ k[..., part, :]
    return grad_q, grad_k, grad_v


def _tiles(keys):
    return [slice(start, min(start + TILE, keys)) for start in range(0, keys, TILE)]


def _scores(q, k, scale, is_causal, part):
    """scale Q K^T for a part of the keys, -inf where a query does not see a key."""
    scores = q @ np.swapaxes(k[..., part, :], -1, -2)
    scores *= scale
    if is_causal:
        future = np.arange(part.start, part.stop) > np.arange(q.shape[-2])[:, None]
        scores[..., future] = -np.inf
    return scores
