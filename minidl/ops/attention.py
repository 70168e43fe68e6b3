"""Attention (Vaswani et al. 2017)."""

import math

import numpy as np

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.arithmetic import add, multiply
from minidl.ops.choice import where
from minidl.ops.dropout import check_fraction
from minidl.ops.reduction import amax, sum
from minidl.ops.shape import reshape, unbroadcast, unsqueeze
from minidl.ops.softmax import softmax
from minidl.tensor import Tensor
from minidl.validation import check_count


class Attention(Op):
    """softmax(scale (Q K^T + mask)) V; causal: query i sees the keys up to i. Leading dimensions broadcast.

    scale: positive. window: a causal query sees the last so many of its keys; None for all. Of the attention weights a
    random fraction `dropout` is zeroed, the rest divided by 1 - dropout.
    recompute: the weights are not kept for backward, but made again from Q and K (Korthikanti et al. 2022, section 5).
    Where the device attends in tiles there are no weights to keep, but for a mask or dropout.
    """

    def __init__(
        self, scale: float, is_causal: bool, dropout: float, recompute: bool = False, window: int | None = None
    ):
        self.scale, self.is_causal, self.window = scale, is_causal, window
        self.dropout, self.recompute = dropout, recompute

    def forward(self, q, k, v, mask=None):  # (..., queries, width), (..., keys, width), (..., keys, values)
        kernels = self.kernels
        self.q, self.k, self.v, self.mask, self.survivors = q, k, v, mask, None
        self.y = self.log_sum_exp = self.weights = None
        if mask is None and not self.dropout and fit_tiles(kernels, q, k, v):
            self.y, self.log_sum_exp = kernels.attention(q, k, v, self.scale, self.is_causal, self.window)
            return self.y
        dropped = weights = self._weigh()
        if self.dropout:
            dropped, self.survivors = kernels.dropout(weights, self.dropout)
        self.weights = None if self.recompute else weights
        return kernels.matmul(dropped, v)

    def recompute_saved(self):  # the weights serve backward, whether forward had them or not
        self.weights, self.log_sum_exp = self._weigh(), None

    def _weigh(self):
        return weigh(self.kernels, self.q, self.k, self.scale, self.is_causal, self.mask, self.window)

    def backward(self, grad):
        kernels, q, k, v = self.kernels, self.q, self.k, self.v
        if self.log_sum_exp is not None:
            known = self.y, self.log_sum_exp, self.scale, self.is_causal, self.window
            grads = kernels.attention_grad(grad, q, k, v, *known)
        else:
            weights = self._weigh() if self.weights is None else self.weights
            grads = attend_grad(kernels, grad, q, k, v, weights, self.scale, self.survivors, self.dropout)
        shapes = [x.shape for x in (q, k, v, self.mask) if x is not None]
        return tuple(unbroadcast(kernels, g, shape) for g, shape in zip(grads, shapes, strict=False))


class PackedAttention(Op):
    """Attention of a sequence to itself, with query, key and value in one array; the heads are joined in the result.

    recompute, window: as in Attention.
    """

    def __init__(self, is_causal: bool, recompute: bool = False, window: int | None = None):
        self.is_causal, self.recompute, self.window = is_causal, recompute, window

    def forward(self, qkv):  # (batch, sequence, 3, heads, head_dim)
        kernels, self.qkv = self.kernels, qkv
        self.scale = 1 / math.sqrt(qkv.shape[-1])
        self.y = self.log_sum_exp = self.weights = None
        if fit_tiles(kernels, qkv):
            out, self.log_sum_exp = kernels.attention(*unpack(kernels, qkv), self.scale, self.is_causal, self.window)
            self.y = join_heads(kernels, out)
            return self.y
        weights = self._weigh()
        self.weights = None if self.recompute else weights
        return join_heads(kernels, kernels.matmul(weights, unpack(kernels, qkv)[2]))

    def recompute_saved(self):
        self.weights, self.log_sum_exp = self._weigh(), None

    def _weigh(self):
        q, k, _ = unpack(self.kernels, self.qkv)
        return weigh(self.kernels, q, k, self.scale, self.is_causal, None, self.window)

    def backward(self, grad):  # (batch, sequence, heads * head_dim)
        kernels = self.kernels
        batch, sequence, _, heads, head_dim = self.qkv.shape
        grad, parts = split_heads(kernels, grad, heads), unpack(kernels, self.qkv)
        if self.log_sum_exp is not None:
            out = split_heads(kernels, self.y, heads)
            known = out, self.log_sum_exp, self.scale, self.is_causal, self.window
            grads = kernels.attention_grad(grad, *parts, *known)
        else:
            weights = self._weigh() if self.weights is None else self.weights
            *grads, _ = attend_grad(kernels, grad, *parts, weights, self.scale)
        parts = [kernels.reshape(g, (batch, 1, heads, sequence, head_dim)) for g in grads]
        return kernels.permute(kernels.concatenate(parts, 1), (0, 3, 1, 2, 4))


def unpack(kernels, qkv):
    """(batch, sequence, 3, heads, head_dim) -> three views (batch, heads, sequence, head_dim)."""
    split = kernels.permute(qkv, (2, 0, 3, 1, 4))
    return tuple(kernels.index(split, (i,)) for i in range(3))


def fit_tiles(kernels, *arrays):
    """Whether the device attends in tiles, and the heads of queries, keys and values are narrow enough for it."""
    widest, dtype = kernels.WIDEST_IN_TILES, arrays[0].dtype
    return all(x.dtype == dtype and 0 < x.shape[-1] * dtype.itemsize <= widest for x in arrays)


def join_heads(kernels, x):
    """(batch, heads, sequence, head_dim) -> (batch, sequence, heads * head_dim)."""
    batch, heads, sequence, head_dim = x.shape
    return kernels.reshape(kernels.permute(x, (0, 2, 1, 3)), (batch, sequence, heads * head_dim))


def split_heads(kernels, x, heads):
    """(batch, sequence, heads * head_dim) -> a view (batch, heads, sequence, head_dim)."""
    batch, sequence, hidden = x.shape
    return kernels.permute(kernels.reshape(x, (batch, sequence, heads, hidden // heads)), (0, 2, 1, 3))


def weigh(kernels, q, k, scale, is_causal, mask=None, window=None):
    """The attention weights (..., queries, keys)."""
    scores = kernels.matmul(q, kernels.swap_last(k))
    scores = scores if mask is None else kernels.add(scores, mask)
    return kernels.attention_weights(scores, scale, is_causal, window)


def attend_grad(kernels, grad, q, k, v, weights, scale, kept=None, dropout=0.0):
    """The gradients of q, k, v, and of Q K^T. kept: the mask of the weights that dropout kept."""
    grad_weights = kernels.matmul(grad, kernels.swap_last(v))
    dropped = weights
    if kept is not None:
        dropped = kernels.dropout_grad(weights, kept, dropout)
        grad_weights = kernels.dropout_grad(grad_weights, kept, dropout)
    grad_v = kernels.matmul(kernels.swap_last(dropped), grad)
    grad_scores = kernels.attention_weights_grad(grad_weights, weights, scale)
    return kernels.matmul(grad_scores, k), kernels.matmul(kernels.swap_last(grad_scores), q), grad_v, grad_scores


@tensor_kernel
def attention_weights(scores, scale, is_causal, window=None):
    scores = multiply(scores, scale)
    if is_causal:
        seen = np.tril(np.ones(scores.shape[-2:], bool))
        seen = seen if window is None else np.triu(seen, 1 - window)
        scores = add(scores, Tensor(scores.kernels.array(np.where(seen, 0, -np.inf), scores.dtype)))
    seen = amax(scores, -1, True) > -math.inf  # a query that sees no key gets zeros
    return where(seen, softmax(where(seen, scores, 0.0), -1), 0.0)


@tensor_kernel
def attention_weights_grad(grad, weights, scale):
    along = multiply(grad, weights)
    return multiply(add(along, multiply(weights, -sum(along, -1, True))), scale)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *, recompute: bool = False,
    window: int | None = None,
) -> Tensor:  # fmt: skip
    """softmax(scale Q K^T + mask) V of query (..., queries, width), key (..., keys, width), value (..., keys, values).

    attn_mask: broadcasts to (..., queries, keys); bools say which keys a query sees, floats are added. dropout_p: of
    the attention weights, whether training or not. is_causal: query i sees the keys up to i. scale: 1 / sqrt(width)
    unless given. enable_gqa: dimension -3 is heads, and each head of key and value serves several of the query's.
    recompute: backward makes the attention weights again instead of having them kept. window: a causal query sees no
    more than the last so many of its keys, its own among them (Beltagy et al. 2020, "Longformer", section 3.1).
    """
    _check(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
    _check_window(window, is_causal)
    if enable_gqa:
        return _grouped(query, key, value, attn_mask, dropout_p, is_causal, scale, recompute, window)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if attn_mask is None and scale > 0:
        return Attention(scale, is_causal, dropout_p, recompute, window)(query, key, value)
    masks = () if attn_mask is None else (additive(attn_mask, query),)
    return Attention(1.0, is_causal, dropout_p, recompute, window)(multiply(query, scale), key, value, *masks)


def additive(mask: Tensor, like: Tensor) -> Tensor:
    """The mask as numbers to add, in the dtype of `like`: 0 where a mask of bools is true, -inf elsewhere."""
    if mask.dtype.kind not in "bf":
        raise TypeError(f"attention: a mask is of bools or of floats to add, not of {mask.dtype}")
    if mask.dtype.kind == "f":
        return mask
    k = like.kernels
    return Tensor(k.where(mask.data, k.full((), 0, like.dtype), k.full((), -math.inf, like.dtype)))


def _grouped(query, key, value, mask, dropout_p, is_causal, scale, recompute, window):
    """Heads of queries as (heads of keys, queries a key), which broadcast against (heads of keys, 1)."""
    *leading, heads, queries, width = query.shape
    groups = key.shape[-3]
    query = reshape(query, *leading, groups, heads // groups, queries, width)
    key, value = unsqueeze(key, -3), unsqueeze(value, -3)
    if mask is not None and mask.ndim > 2:
        *outer, _, rows, columns = mask.shape
        shared = mask.shape[-3] == 1
        mask = unsqueeze(mask, -3) if shared else reshape(mask, *outer, groups, heads // groups, rows, columns)
    out = scaled_dot_product_attention(
        query, key, value, mask, dropout_p, is_causal, scale, recompute=recompute, window=window
    )
    return reshape(out, *leading, heads, queries, value.shape[-1])


def _check(query, key, value, mask, dropout_p, is_causal, enable_gqa):
    """ValueError unless the shapes fit and the options go together."""
    shapes = f"query {query.shape}, key {key.shape}, value {value.shape}"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ValueError(f"attention needs two dimensions at least, not {shapes}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(f"attention needs keys as wide as queries and as many as values, not {shapes}")
    if enable_gqa:
        heads = [x.shape[-3] if x.ndim > 2 else 0 for x in (query, key, value)]
        if heads[1] != heads[2] or not heads[1] or heads[0] % heads[1]:
            raise ValueError(f"attention: enable_gqa needs the heads of query to be a multiple of key's, not {shapes}")
    else:
        try:
            leading = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
            if mask is not None:
                np.broadcast_shapes((*leading, query.shape[-2], key.shape[-2]), mask.shape)
        except ValueError:
            masked = "" if mask is None else f" with a mask {mask.shape}"
            raise ValueError(f"attention: {shapes}{masked} do not broadcast") from None
    if mask is not None and is_causal:
        raise ValueError("attention: give attn_mask or is_causal, not both")
    check_fraction(dropout_p)


def _check_window(window, is_causal):
    if window is None:
        return
    check_count("attention: window", window)
    if not is_causal:
        raise ValueError(f"attention: window={window} is of the last keys that a query sees: it needs is_causal")


def packed_attention(
    qkv: Tensor, is_causal: bool = False, recompute: bool = False, *, window: int | None = None
) -> Tensor:
    """Self-attention of qkv (batch, sequence, 3, heads, head_dim) -> (batch, sequence, heads * head_dim).

    Equal to `scaled_dot_product_attention` on its three parts, without taking them apart and together again.
    recompute, window: as there.
    """
    _check_window(window, is_causal)
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        raise ValueError(f"packed_attention needs (batch, sequence, 3, heads, head_dim), not {qkv.shape}")
    return PackedAttention(is_causal, recompute, window)(qkv)
