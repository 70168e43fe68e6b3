"""Attention in tiles: shapes and costs. The scores are never written."""

import math

from minidl.kernels import algorithms
from minidl.kernels.memory_order import broadcast
from minidl.kernels.meta.record import MetaArray, result

__all__ = ["WIDEST_IN_TILES", "attention", "attention_grad"]

WIDEST_IN_TILES = algorithms.WIDEST_IN_TILES["cpu"]  # but for `kernels.predicting`


def attention(q, k, v, scale, is_causal, window=None):
    heads = broadcast(*(x.shape[:-2] for x in (q, k, v)))
    queries, width, values = q.shape[-2], q.shape[-1], v.shape[-1]
    keys = _seen(queries, k.shape[-2], window)
    log_sum_exp = MetaArray((*heads, queries), q.dtype)
    product = math.prod(heads), queries, keys, width + values
    flops = 2 * math.prod(product) + 15 * math.prod(product[:3])
    out = result(
        "attention", (q, k, v), (*heads, queries, values), q.dtype, flops=flops, shapes=(product,),
        also_written=(log_sum_exp,), kind="product", options=(_share(queries, keys, is_causal, window),),
    )  # fmt: skip
    return out, log_sum_exp


def attention_grad(grad, q, k, v, out, log_sum_exp, scale, is_causal, window=None):
    """Seven products a tile: two make the weights again, for queries and for keys, two the gradient of the weights.

    With weights that were kept, as matmul and attention_weights_grad do it, there would be four.
    """
    heads = out.shape[:-2]
    grad_k, grad_v = (MetaArray((*heads, *x.shape[-2:]), x.dtype) for x in (k, v))
    width, values = q.shape[-1], v.shape[-1]
    product = math.prod(heads), q.shape[-2], _seen(q.shape[-2], k.shape[-2], window), 4 * width + 3 * values
    weights = math.prod(product[:3])
    flops = 2 * math.prod(product) + 30 * weights + 2 * out.size
    needed = weights * (4 * (width + values) + 5)
    grad_q = result(
        "attention_grad", (grad, q, k, v, out, log_sum_exp), (*heads, *q.shape[-2:]), q.dtype, flops=flops,
        shapes=(product,), also_written=(grad_k, grad_v), kind="product", recomputed=flops - needed,
        options=(_share(*product[1:3], is_causal, window),),
    )  # fmt: skip
    return grad_q, grad_k, grad_v


def _seen(queries, keys, window):
    """The keys that count for a query: all without a window, also of a causal one; else those seen, on average."""
    if window is None or not queries:
        return keys
    seen, too_old = (_pairs(n, keys) for n in (queries, max(0, queries - window)))
    return -(-(seen - too_old) // queries)


def _pairs(queries, keys):
    """How many queries and keys up to theirs there are."""
    both = min(queries, keys)
    return both * (both + 1) // 2 + (queries - both) * keys


def _share(queries, keys, is_causal, window):
    """Of the pairs that count, the share that is seen: about half of a causal one's, where no window has left out
    those that are not."""
    if not is_causal or window is not None or not queries * keys:
        return 1.0
    return _pairs(queries, keys) / (queries * keys)
