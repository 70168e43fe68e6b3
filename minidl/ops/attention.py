"""Attention (Vaswani et al. 2017)."""

import math

from minidl.tensor import Op, Tensor


class Attention(Op):
    """softmax(Q K^T / sqrt(head_dim)) V; causal: query i sees the keys up to i."""

    def __init__(self, is_causal: bool):
        self.is_causal = is_causal

    def forward(self, q, k, v):  # (batch, heads, sequence, head_dim)
        out, self.weights = attend(self.kernels, q, k, v, self.is_causal)
        self.q, self.k, self.v = q, k, v
        return out

    def backward(self, grad):
        return attend_grad(self.kernels, grad, self.q, self.k, self.v, self.weights)


class PackedAttention(Op):
    """Attention of a sequence to itself, with query, key and value in one array; the heads are joined in the result."""

    def __init__(self, is_causal: bool):
        self.is_causal = is_causal

    def forward(self, qkv):  # (batch, sequence, 3, heads, head_dim)
        kernels, self.qkv = self.kernels, qkv
        out, self.weights = attend(kernels, *unpack(kernels, qkv), self.is_causal)
        batch, heads, sequence, head_dim = out.shape
        return kernels.reshape(kernels.permute(out, (0, 2, 1, 3)), (batch, sequence, heads * head_dim))

    def backward(self, grad):  # (batch, sequence, heads * head_dim)
        kernels = self.kernels
        batch, sequence, _, heads, head_dim = self.qkv.shape
        grad = kernels.permute(kernels.reshape(grad, (batch, sequence, heads, head_dim)), (0, 2, 1, 3))
        grads = attend_grad(kernels, grad, *unpack(kernels, self.qkv), self.weights)
        parts = [kernels.reshape(g, (batch, 1, heads, sequence, head_dim)) for g in grads]
        return kernels.permute(kernels.concatenate(parts, 1), (0, 3, 1, 2, 4))


def unpack(kernels, qkv):
    """(batch, sequence, 3, heads, head_dim) -> three views (batch, heads, sequence, head_dim)."""
    split = kernels.permute(qkv, (2, 0, 3, 1, 4))
    return tuple(kernels.index(split, (i,)) for i in range(3))


def attend(kernels, q, k, v, is_causal):
    """The result (batch, heads, queries, head_dim) and the attention weights (batch, heads, queries, keys)."""
    scores = kernels.matmul(q, kernels.swap_last(k))  # (batch, heads, queries, keys)
    weights = kernels.attention_weights(scores, 1 / math.sqrt(q.shape[-1]), is_causal)
    return kernels.matmul(weights, v), weights


def attend_grad(kernels, grad, q, k, v, weights):
    """The gradients of q, k and v."""
    grad_v = kernels.matmul(kernels.swap_last(weights), grad)
    grad_weights = kernels.matmul(grad, kernels.swap_last(v))
    grad_scores = kernels.attention_weights_grad(grad_weights, weights, 1 / math.sqrt(q.shape[-1]))
    return kernels.matmul(grad_scores, k), kernels.matmul(kernels.swap_last(grad_scores), q), grad_v


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """softmax(Q K^T / sqrt(head_dim)) V over (batch, heads, sequence, head_dim)."""
    if q.ndim != 4 or k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"attention needs q, k, v (batch, heads, sequence, head_dim), not {q.shape}, {k.shape} and {v.shape}"
        )
    return Attention(is_causal)(q, k, v)


def packed_attention(qkv: Tensor, is_causal: bool = False) -> Tensor:
    """Self-attention of qkv (batch, sequence, 3, heads, head_dim) -> (batch, sequence, heads * head_dim).

    Equal to `scaled_dot_product_attention` on its three parts, without taking them apart and together again.
    """
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        raise ValueError(f"packed_attention needs (batch, sequence, 3, heads, head_dim), not {qkv.shape}")
    return PackedAttention(is_causal)(qkv)
