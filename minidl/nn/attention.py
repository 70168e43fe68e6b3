"""Multi-head attention and the transformer block around it, with PyTorch's arguments and parameter names."""

import math
from collections.abc import Callable

from minidl import ops
from minidl.creation import arange
from minidl.nn import init
from minidl.nn.layers import Dropout, Linear
from minidl.nn.module import Module
from minidl.nn.normalization import LayerNorm
from minidl.nn.parameter import Parameter
from minidl.ops.attention import additive
from minidl.ops.dropout import check_fraction
from minidl.tensor import Tensor


class MultiheadAttention(Module):
    """Attention of `num_heads` heads at once, with projections before and after (Vaswani et al. 2017, section 3.2.2).

    kdim, vdim: the widths of key and value, embed_dim unless given. dropout: of the attention weights. batch_first:
    the inputs are (batch, sequence, width), not (sequence, batch, width).
    """

    recompute = False  # attention weights are made again in backward, where nobody asks for them

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, *, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False,
    ):  # fmt: skip
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: embed_dim={embed_dim} is not divisible by num_heads={num_heads}")
        check_fraction(dropout)
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = Parameter((3 * embed_dim, embed_dim), init=init.xavier_uniform())
        else:
            self.in_proj_weight = None
            self.q_proj_weight = Parameter((embed_dim, embed_dim), init=init.xavier_uniform())
            self.k_proj_weight = Parameter((embed_dim, self.kdim), init=init.xavier_uniform())
            self.v_proj_weight = Parameter((embed_dim, self.vdim), init=init.xavier_uniform())
        self.in_proj_bias = Parameter((3 * embed_dim,), init=init.zeros()) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if bias:
            init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The output, shaped like query, and the weights (batch, queries, keys), or None unless `need_weights`.

        query (queries, batch, embed_dim), key (keys, batch, kdim), value (keys, batch, vdim), or all without the batch.
        key_padding_mask (batch, keys) and attn_mask (queries, keys) or (batch * num_heads, queries, keys): bools are
        true for keys that are *not* seen, floats are added. is_causal: query i sees the keys up to i; without effect
        beside an attn_mask, as in PyTorch. The weights are the mean over the heads, or if not `average_attn_weights`
        (batch, num_heads, queries, keys); without a batch its dimension is missing.
        """
        self._check(query, key, value)
        same, batched = query is key is value, query.ndim == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))  # (batch, sequence, width)
        is_causal = is_causal and attn_mask is None
        mask = self._mask(query, key, key_padding_mask, attn_mask)
        if same and mask is None and not need_weights and self.in_proj_weight is not None and not self._dropout():
            out, weights = self._packed(query, is_causal), None
        else:
            heads = self._heads(query, key, value)
            out, weights = (self._weighed if need_weights else self._fused)(*heads, mask, is_causal)
            out = out.permute(0, 2, 1, 3).reshape(*query.shape[:2], self.embed_dim)
        out = self.out_proj(out)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _dropout(self) -> float:
        return self.dropout if self.training else 0.0

    def _packed(self, x, is_causal):
        """Self-attention (batch, sequence, embed_dim) by one projection and one op."""
        qkv = ops.linear(x, self.in_proj_weight, self.in_proj_bias)
        qkv = qkv.reshape(*x.shape[:2], 3, self.num_heads, self.embed_dim // self.num_heads)
        return ops.packed_attention(qkv, is_causal, self.recompute)

    def _heads(self, *inputs):
        """Query, key and value (batch, sequence, width), projected: (batch, heads, sequence, head_dim)."""
        weights = (
            ops.split(self.in_proj_weight, self.embed_dim)
            if self.in_proj_weight is not None
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        head_dim = self.embed_dim // self.num_heads
        biases = (None,) * 3 if self.in_proj_bias is None else ops.split(self.in_proj_bias, self.embed_dim)
        return [
            ops.linear(x, weight, bias).reshape(*x.shape[:2], self.num_heads, head_dim).permute(0, 2, 1, 3)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        ]

    def _fused(self, q, k, v, mask, is_causal):
        out = ops.scaled_dot_product_attention(q, k, v, mask, self._dropout(), is_causal, recompute=self.recompute)
        return out, None

    def _weighed(self, q, k, v, mask, is_causal):
        """What `scaled_dot_product_attention` does, step by step: the result and the attention weights."""
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)  # (batch, heads, queries, keys)
        if is_causal:
            query, key = (arange(n, device=q.device) for n in scores.shape[-2:])
            mask = additive(query.unsqueeze(1) >= key, scores)
        weights = ops.softmax(scores if mask is None else scores + mask, -1)
        weights = ops.dropout(weights, self._dropout())
        return weights @ v, weights

    def _mask(self, query, key, key_padding_mask, attn_mask):
        """Both masks as one of numbers to add that broadcasts to (batch, heads, queries, keys); None without any."""
        batch, queries, keys = *query.shape[:2], key.shape[1]
        mask = None
        if attn_mask is not None:
            if attn_mask.shape not in ((queries, keys), (batch * self.num_heads, queries, keys)):
                raise ValueError(
                    f"MultiheadAttention: attn_mask has shape {attn_mask.shape}, it must be {(queries, keys)} or "
                    f"{(batch * self.num_heads, queries, keys)}"
                )
            mask = additive(_seen(attn_mask), query)
            if mask.ndim == 3:
                mask = mask.reshape(batch, self.num_heads, queries, keys)
        if key_padding_mask is not None:
            if key_padding_mask.shape != (batch, keys):
                raise ValueError(
                    f"MultiheadAttention: key_padding_mask has shape {key_padding_mask.shape}, it must be "
                    f"{(batch, keys)}"
                )
            padding = additive(_seen(key_padding_mask), query).reshape(batch, 1, 1, keys)
            mask = padding if mask is None else mask + padding
        return mask

    def _check(self, query, key, value):
        given = f"query {query.shape}, key {key.shape}, value {value.shape}"
        if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
            raise ValueError(f"MultiheadAttention needs three inputs, all with a batch or all without, not {given}")
        widths = self.embed_dim, self.kdim, self.vdim
        if (query.shape[-1], key.shape[-1], value.shape[-1]) != widths or key.shape[:-1] != value.shape[:-1]:
            raise ValueError(f"MultiheadAttention needs widths {widths} and as many values as keys, not {given}")

    def extra_repr(self):
        return f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"


def _seen(mask):
    """The opposite of a mask of bools; any other mask as it is."""
    return ops.logical_not(mask) if mask.dtype.kind == "b" else mask


class TransformerBlock(Module):
    """A block of a transformer's encoder: PyTorch's TransformerEncoderLayer, with its arguments and parameters' names.

    x = norm1(x + self_attn(x)), then x = norm2(x + feed_forward(x)); with `norm_first` x + self_attn(norm1(x)) and x +
    feed_forward(norm2(x)), which trains without warm-up (Xiong et al. 2020, "On Layer Normalization in the Transformer
    Architecture"). activation: "relu", "gelu" or a function of a tensor.
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True,
    ):  # fmt: skip
        if isinstance(activation, str) and activation not in ("relu", "gelu"):
            raise ValueError(f'TransformerBlock: activation={activation!r}, it must be "relu", "gelu" or a function')
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias)
        self.dropout = Dropout(dropout)
        self.activation = getattr(ops, activation) if isinstance(activation, str) else activation
        self.norm_first = norm_first

    def forward(
        self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """src (sequence, batch, d_model), or as `batch_first` says; the masks are those of MultiheadAttention."""

        def attend(x):
            out, _ = self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)
            return self.dropout(out)

        def feed_forward(x):
            return self.dropout(self.linear2(self.dropout(self.activation(self.linear1(x)))))

        if self.norm_first:
            x = src + attend(self.norm1(src))
            return x + feed_forward(self.norm2(x))
        x = self.norm1(src + attend(src))
        return self.norm2(x + feed_forward(x))

    def extra_repr(self):
        return f"norm_first={self.norm_first}"
