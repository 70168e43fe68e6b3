"""Self-attention whose heads are split over a group; with rotary positions and shared keys where they are wanted."""

from functools import cache

import numpy as np

from minidl import nn, ops
from minidl.creation import tensor
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear
from minidl.tensor import Tensor


class SelfAttention(nn.Module):
    """Every position attends to all, if causal to itself and those before it; the heads are split over the group.

    recompute: as of nn.MultiheadAttention.
    """

    recompute = False

    def __init__(self, hidden: int, heads: int, is_causal: bool, bias: bool = True, group=None):
        self.head_dim, self.is_causal = hidden // heads, is_causal
        self.qkv = ColumnParallelLinear(hidden, 3 * hidden, group, bias, parts=3)
        self.projection = RowParallelLinear(hidden, hidden, group, bias)

    def forward(self, x):
        batch, sequence, _ = x.shape
        qkv = self.qkv(x)  # (batch, sequence, 3 * local heads * head_dim)
        heads = qkv.shape[-1] // (3 * self.head_dim)
        qkv = qkv.reshape(batch, sequence, 3, heads, self.head_dim)
        return self.projection(ops.packed_attention(qkv, self.is_causal, self.recompute))  # (batch, sequence, hidden)


class GroupedQueryAttention(nn.Module):
    """Causal self-attention where heads / kv_heads query heads share one key and one value (Ainslie et al. 2023).

    rotary_base: of the rotary positions of queries and keys, None to have none. The matrix of queries, keys and values
    holds, for each key, its queries, the key, and its value: so a plain cut over the group keeps them together.
    recompute: as of nn.MultiheadAttention.
    """

    recompute = False

    def __init__(
        self, hidden: int, heads: int, kv_heads: int, rotary_base: float | None = None, bias: bool = True, group=None
    ):
        self.head_dim, self.queries, self.rotary_base = hidden // heads, heads // kv_heads, rotary_base
        self.qkv = ColumnParallelLinear(hidden, kv_heads * (self.queries + 2) * self.head_dim, group, bias)
        self.projection = RowParallelLinear(hidden, hidden, group, bias)

    def forward(self, x):
        batch, sequence, _ = x.shape
        queries, width = self.queries, self.head_dim
        qkv = self.qkv(x)
        local = qkv.shape[-1] // ((queries + 2) * width)  # kv_heads; -1 would be ambiguous for a batch of nothing
        qkv = qkv.reshape(batch, sequence, local, queries + 2, width)
        qkv = qkv.permute(0, 2, 3, 1, 4)  # (batch, local kv_heads, queries + 2, sequence, head_dim)
        qk, v = qkv[:, :, :-1], qkv[:, :, -1:]
        if self.rotary_base is not None:
            qk = rotate(qk, self.rotary_base)
        q, k = qk[:, :, :-1], qk[:, :, -1:]
        k, v = k.expand(q.shape), v.expand(q.shape)  # queries share them
        q, k, v = (t.reshape(batch, local * queries, sequence, width) for t in (q, k, v))
        # (batch, local heads, sequence, head_dim)
        out = ops.scaled_dot_product_attention(q, k, v, is_causal=True, recompute=self.recompute)
        out = out.permute(0, 2, 1, 3).reshape(batch, sequence, local * queries * width)
        return self.projection(out)  # (batch, sequence, hidden)


def rotate(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotary positions (Su et al. 2021, section 3.2.2) of x (..., sequence, head_dim): a rotation for each position.

    Elements i and i + head_dim / 2 are turned by position * base^(-2i / head_dim), so that the product of a query and
    a key depends on how far apart they are. (The paper turns neighbours 2i and 2i + 1: the same up to the order.)
    """
    sequence, width = x.shape[-2:]
    cosine, sine = (tensor(table, x.dtype, device=x.device) for table in angles(sequence, width, base))
    a, b = ops.split(x, width // 2, -1)  # (..., sequence, head_dim / 2)
    return ops.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


@cache
def angles(sequence: int, width: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine (sequence, width / 2) of each position's angles."""
    angle = np.outer(np.arange(sequence), base ** (-np.arange(0, width, 2) / width))
    return np.cos(angle), np.sin(angle)
