"""Self-attention whose heads are split over a group, and whose sequence may be split over another.

With rotary positions and shared keys where they are wanted.
"""

from functools import cache

import numpy as np

from minidl import nn, ops
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear, summed_over, useful
from minidl.parallel.ring_attention import ring_attention
from minidl.parallel.sequence import positions
from minidl.tensor import Tensor


class SelfAttention(nn.Module):
    """Every position attends to all, if causal to itself and those before it; the heads are split over the group.

    context: the ranks that have the parts of the sequence. sequence_parallel: between the layers the group has slices
    of that part. head_dim: hidden / heads unless given. qkv_bias: whether queries, keys and values have biases, where
    it is not as `bias` says. window: as of `ops.scaled_dot_product_attention`, without a context. recompute: as of
    nn.MultiheadAttention.
    """

    recompute = False

    def __init__(
        self, hidden: int, heads: int, is_causal: bool, bias: bool = True, group=None, context=None,
        sequence_parallel: bool = False, head_dim: int | None = None, window: int | None = None,
        qkv_bias: bool | None = None,
    ):  # fmt: skip
        qkv_bias = bias if qkv_bias is None else qkv_bias
        self.head_dim, self.is_causal, self.context = head_dim or hidden // heads, is_causal, useful(context)
        self.window = window
        width = heads * self.head_dim
        self.qkv = ColumnParallelLinear(
            hidden, 3 * width, group, qkv_bias, parts=3, sequence_parallel=sequence_parallel
        )
        self.projection = RowParallelLinear(width, hidden, group, bias, sequence_parallel)

    def forward(self, x):
        qkv = self.qkv(x)  # (batch, sequence, 3 * local heads * head_dim)
        batch, sequence, width = qkv.shape
        heads = width // (3 * self.head_dim)
        qkv = qkv.reshape(batch, sequence, 3, heads, self.head_dim)
        if self.context is None:
            out = ops.packed_attention(qkv, self.is_causal, self.recompute, window=self.window)
            return self.projection(out)  # as x
        q, k, v = (part.squeeze(2).permute(0, 2, 1, 3) for part in ops.split(qkv, 1, 2))  # (batch, heads, sequence, …)
        out = ring_attention(q, k, v, self.context, self.is_causal)
        return self.projection(out.permute(0, 2, 1, 3).reshape(batch, sequence, heads * self.head_dim))


class GroupedQueryAttention(nn.Module):
    """Causal self-attention where heads / kv_heads query heads share one key and one value (Ainslie et al. 2023).

    rotary_base: of the rotary positions of queries and keys, None to have none. The matrix of queries, keys and values
    holds, for each key, its queries, the key, and its value: so a plain cut over the group keeps them together.
    normed_eps: each query and each key is normalised by its root mean square, with this added, before positions (Qwen
    Team 2025, "Qwen3 Technical Report", section 2); None for not. The others: as of SelfAttention.
    """

    recompute = False

    def __init__(
        self, hidden: int, heads: int, kv_heads: int, rotary_base: float | None = None, bias: bool = True, group=None,
        context=None, sequence_parallel: bool = False, head_dim: int | None = None, window: int | None = None,
        qkv_bias: bool | None = None, normed_eps: float | None = None,
    ):  # fmt: skip
        qkv_bias = bias if qkv_bias is None else qkv_bias
        self.head_dim, self.queries, self.rotary_base = head_dim or hidden // heads, heads // kv_heads, rotary_base
        self.context, self.window = useful(context), window
        self.query_norm = self.key_norm = None
        if normed_eps is not None:  # each rank uses them for its own heads
            norms = (summed_over(nn.RMSNorm(self.head_dim, normed_eps), group) for _ in range(2))
            self.query_norm, self.key_norm = norms
        features = kv_heads * (self.queries + 2) * self.head_dim
        self.qkv = ColumnParallelLinear(hidden, features, group, qkv_bias, sequence_parallel=sequence_parallel)
        self.projection = RowParallelLinear(heads * self.head_dim, hidden, group, bias, sequence_parallel)

    def forward(self, x):
        queries, width = self.queries, self.head_dim
        qkv = self.qkv(x)
        batch, sequence, _ = qkv.shape
        local = qkv.shape[-1] // ((queries + 2) * width)  # kv_heads; -1 would be ambiguous for a batch of nothing
        qkv = qkv.reshape(batch, sequence, local, queries + 2, width)
        qkv = qkv.permute(0, 2, 3, 1, 4)  # (batch, local kv_heads, queries + 2, sequence, head_dim)
        qk, v = qkv[:, :, :-1], qkv[:, :, -1:]
        if self.query_norm is not None:
            qk = ops.cat([self.query_norm(qk[:, :, :-1]), self.key_norm(qk[:, :, -1:])], 2)
        if self.rotary_base is not None:
            qk = rotate(qk, self.rotary_base, self.context)
        q, k = qk[:, :, :-1], qk[:, :, -1:]
        if self.context is None:  # queries share them: (batch, local kv_heads, queries, sequence, head_dim)
            out = ops.scaled_dot_product_attention(
                q, k, v, is_causal=True, recompute=self.recompute, window=self.window
            ).permute(0, 3, 1, 2, 4)
        else:
            q, k, v = (t.reshape(batch, local * t.shape[2], sequence, width) for t in (q, k, v))
            out = ring_attention(q, k, v, self.context, is_causal=True).permute(0, 2, 1, 3)
        out = out.reshape(batch, sequence, local * queries * width)
        return self.projection(out)  # (batch, sequence, hidden)


def rotate(x: Tensor, base: float = 10000.0, context=None) -> Tensor:
    """Rotary positions (Su et al. 2021, section 3.2.2) of x (..., sequence, head_dim): a rotation for each position.

    context: the ranks that have the parts of the sequence.

    Elements i and i + head_dim / 2 are turned by position * base^(-2i / head_dim), so that the product of a query and
    a key depends on how far apart they are. (The paper turns neighbours 2i and 2i + 1: the same up to the order.)
    """
    sequence, width = x.shape[-2:]
    rank, size = (context.rank, context.size) if context else (0, 1)
    shape, key = (sequence, width // 2), (sequence * size, width, base, rank, size)
    cosine, sine = (Tensor(x.kernels.drawn(lambda shape, i=i: turns(*key)[i], shape, x.dtype)) for i in range(2))
    a, b = ops.split(x, width // 2, -1)  # (..., sequence, head_dim / 2)
    return ops.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


def positions_here(sequence: int, context) -> np.ndarray:
    """The positions of the `sequence` that this rank has of the whole one."""
    rank, size = (context.rank, context.size) if context else (0, 1)
    return positions(sequence * size, rank, size)


@cache
def turns(sequence: int, width: int, base: float, rank: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine (sequence / size, width / 2) of the angles of each position that `rank` of `size` has."""
    angle = np.outer(positions(sequence, rank, size), base ** (-np.arange(0, width, 2) / width))
    return np.cos(angle), np.sin(angle)
