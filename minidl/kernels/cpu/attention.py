"""Attention in tiles of keys, whose scores are made, used and forgotten: what the GPU does, to be read and compared.

The ops of the CPU keep the attention weights instead, as NumPy gains nothing by tiles; ring attention needs them.
"""

import numpy as np

from minidl.kernels import algorithms

__all__ = ["WIDEST_IN_TILES", "attention", "attention_grad"]

WIDEST_IN_TILES = algorithms.WIDEST_IN_TILES["cpu"]
TILE = 64  # keys


def attention(q, k, v, scale, is_causal, window=None):
    """softmax(scale Q K^T) V and, for each query, the logarithm of the sum of exp(scale Q K^T).

    q (..., queries, width), k (..., keys, width), v (..., keys, values), whose leading dimensions broadcast; causal:
    query i sees the keys up to i, of these no more than the last `window` unless it is None. A query that sees no key
    gets zeros, and -inf.

    One pass over the keys (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1): of each query are known the
    largest score so far, and the sum of the exponentials and of the values they weigh, both divided by exp(largest).
    When a larger score comes, they shrink.
    """
    heads = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
    queries, keys = q.shape[-2], k.shape[-2]
    q = q * q.dtype.type(scale)
    largest = np.full((*heads, queries, 1), -np.inf, q.dtype)
    total, out = np.zeros_like(largest), np.zeros((*heads, queries, v.shape[-1]), q.dtype)
    for rows, tile in _tiles(queries, keys, is_causal, window):
        top, sums, values = (x[..., rows, :] for x in (largest, total, out))
        scores = _scores(q[..., rows, :], k[..., tile, :], is_causal, window)
        before = top.copy()
        np.maximum(before, scores.max(axis=-1, keepdims=True), out=top)
        base = np.where(top == -np.inf, 0, top)
        shrink, weights = np.exp(before - base), np.exp(scores - base)
        sums *= shrink
        sums += weights.sum(axis=-1, keepdims=True)
        values *= shrink
        values += weights @ v[..., tile, :]
    seen = total > 0
    out /= np.where(seen, total, 1)
    log_sum_exp = np.where(seen, largest + np.log(np.where(seen, total, 1)), -np.inf)[..., 0]
    return out, log_sum_exp


def attention_grad(grad, q, k, v, out, log_sum_exp, scale, is_causal, window=None):
    """The gradients of q, k and v, each with the leading dimensions of `out`; the last two of forward are its own.

    The weights are made again, exp(score - log_sum_exp), a tile of keys at a time. The part of a score's gradient that
    all keys of a query share, the sum of weight * gradient of weight, is the sum of grad * out (section 3.1).
    """
    heads = out.shape[:-2]
    q = q * q.dtype.type(scale)
    grad_q, grad_k, grad_v = (np.zeros((*heads, *x.shape[-2:]), x.dtype) for x in (q, k, v))
    along = (grad * out).sum(axis=-1, keepdims=True)
    base = np.where(log_sum_exp == -np.inf, 0, log_sum_exp)[..., None]
    for rows, tile in _tiles(q.shape[-2], k.shape[-2], is_causal, window):
        given, asked = grad[..., rows, :], q[..., rows, :]
        weights = np.exp(_scores(asked, k[..., tile, :], is_causal, window) - base[..., rows, :])
        grad_scores = given @ np.swapaxes(v[..., tile, :], -1, -2)
        grad_scores -= along[..., rows, :]
        grad_scores *= weights
        grad_v[..., tile, :] = np.swapaxes(weights, -1, -2) @ given
        grad_k[..., tile, :] = np.swapaxes(grad_scores, -1, -2) @ asked
        grad_q[..., rows, :] += grad_scores @ k[..., tile, :]
    grad_q *= scale
    return grad_q, grad_k, grad_v


def _tiles(queries, keys, is_causal, window):
    """Of each tile the queries that see keys of it, and its keys."""
    for start in range(0, min(queries, keys) if is_causal else keys, TILE):
        tile = slice(start, min(start + TILE, keys))
        last = queries if window is None else min(queries, tile.stop - 1 + window)
        yield slice(start if is_causal else 0, last), tile


def _scores(q, k, is_causal, window):
    """Q K^T of a tile, -inf where a query does not see a key: causal, the first query sees the first key alone."""
    scores = q @ np.swapaxes(k, -1, -2)
    if is_causal:
        n = min(scores.shape[-2:])
        np.copyto(scores[..., :n, :], -np.inf, where=np.triu(np.ones((n, scores.shape[-1]), bool), 1))
    if window is not None:
        np.copyto(scores, -np.inf, where=np.tril(np.ones(scores.shape[-2:], bool), -window))
    return scores
