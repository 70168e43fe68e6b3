"""Latent attention (DeepSeek-AI 2024, "DeepSeek-V2"): the keys and values of a token are made from a short vector."""

from typing import NamedTuple

from minidl import nn, ops
from minidl.models.attention import rotate
from minidl.models.transformer_groups import TransformerGroups
from minidl.parallel.conjugates import Gather, Replicate
from minidl.parallel.layers import SEQUENCE, ColumnParallelLinear, RowParallelLinear, useful
from minidl.parallel.ring_attention import ring_attention


class LatentSizes(NamedTuple):
    """The sizes of a latent attention.

    kv_rank: of the vector from which the keys and values of all heads are made, query_rank: of that of the queries,
    None where these are made from x itself. rotary_dim: of queries and keys the features that have rotary positions,
    beside the `head_dim` that have none; all heads share those of the keys. value_dim: of the values of a head.
    """

    query_rank: int | None
    kv_rank: int
    rotary_dim: int
    value_dim: int


class LatentAttention(nn.Module):
    """Causal latent attention (section 2.1, equations 9 to 19), its heads split over the groups' tensor ranks.

    head_dim: the features of a query or key without positions. Each tensor rank makes the short vectors of all tokens
    that it has, and from them the queries, keys and values of its own heads. eps: of the normalisations. window: as of
    `ops.scaled_dot_product_attention`. recompute: as of nn.MultiheadAttention.
    """

    recompute = False

    def __init__(
        self, hidden: int, heads: int, head_dim: int, sizes: LatentSizes, rotary_base: float, bias: bool,
        groups: TransformerGroups, eps: float, window: int | None = None,
    ):  # fmt: skip
        self.head_dim, self.sizes, self.rotary_base, self.window = head_dim, sizes, rotary_base, window
        self.group, self.context = useful(groups.tensor), useful(groups.context)
        self.sequence_parallel = groups.sequence_parallel

        def to_heads(inputs: int, width: int) -> nn.Module:
            return ColumnParallelLinear(
                inputs, heads * width, groups.tensor, bias, sequence_parallel=groups.sequence_parallel
            )

        def shortened(width: int) -> nn.Module:
            return groups.on_slices(nn.Linear(hidden, width, bias))

        query_width = head_dim + sizes.rotary_dim
        self.query_down = self.query_norm = None
        if sizes.query_rank is not None:
            self.query_down = shortened(sizes.query_rank)
            self.query_norm = groups.on_slices(nn.RMSNorm(sizes.query_rank, eps))
        self.query_up = to_heads(sizes.query_rank or hidden, query_width)
        self.kv_down = shortened(sizes.kv_rank + sizes.rotary_dim)
        self.kv_norm = groups.on_slices(nn.RMSNorm(sizes.kv_rank, eps))
        self.kv_up = to_heads(sizes.kv_rank, head_dim + sizes.value_dim)
        self.projection = RowParallelLinear(
            heads * sizes.value_dim, hidden, groups.tensor, bias, groups.sequence_parallel
        )

    def forward(self, x):
        shared, rotary, values = self.sizes.kv_rank, self.sizes.rotary_dim, self.sizes.value_dim
        q = self._by_head(self.query_up(x if self.query_down is None else self.query_norm(self.query_down(x))))
        short, k_rotary = ops.split(self.kv_down(x), [shared, rotary], -1)
        k, v = ops.split(self._by_head(self.kv_up(self.kv_norm(short))), [self.head_dim, values], -1)
        # q, k, v: (batch, local heads, sequence, …)
        if self.group:
            if self.sequence_parallel:
                k_rotary = Gather(self.group, SEQUENCE)(k_rotary)
            k_rotary = Replicate(self.group)(k_rotary)  # each rank uses it for its own heads
        k_rotary = rotate(k_rotary.unsqueeze(1), self.rotary_base, self.context)  # (batch, 1, sequence, rotary)
        k = ops.cat([k, k_rotary.expand(*k.shape[:-1], rotary)], -1)
        plain, q_rotary = ops.split(q, [self.head_dim, rotary], -1)
        q = ops.cat([plain, rotate(q_rotary, self.rotary_base, self.context)], -1)
        if self.context is None:
            options = dict(is_causal=True, recompute=self.recompute, window=self.window)
            out = ops.scaled_dot_product_attention(q, k, v, **options)
        else:
            out = ring_attention(q, k, v, self.context, is_causal=True)
        batch, heads, sequence, _ = out.shape
        return self.projection(out.permute(0, 2, 1, 3).reshape(batch, sequence, heads * values))

    def _by_head(self, x):
        """(batch, sequence, local heads * width) -> (batch, local heads, sequence, width)."""
        batch, sequence, width = x.shape
        heads = self.projection.weight.shape[1] // self.sizes.value_dim
        return x.reshape(batch, sequence, heads, width // heads).permute(0, 2, 1, 3)
