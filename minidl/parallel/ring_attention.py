"""Attention over a sequence that is split over ranks: keys and values go round a ring (Liu et al. 2023, "Ring
Attention with Blockwise Transformers for Near-Infinite Context").

Each rank keeps its queries and sees every block of keys once. What the blocks give is merged as an online softmax
merges tiles, by the log-sum-exp of each query. The next block is on its way while this one is computed.
"""

import math
from collections.abc import Iterator

from minidl import ops
from minidl.ops.shape import unbroadcast
from minidl.parallel.conjugates import CollectiveOp
from minidl.parallel.group import ProcessGroup
from minidl.tensor import Tensor


class RingAttention(CollectiveOp):
    """Attention of this rank's queries to the keys of all ranks.

    Causal, the ranks have the parts of the sequence that `minidl.parallel.sequence` gives them. What is kept for
    backward is this rank's part alone; keys and values go round again, and their gradients with them.
    """

    def __init__(self, group: ProcessGroup, scale: float, is_causal: bool):
        super().__init__(group)
        self.scale, self.is_causal = scale, is_causal

    def forward(self, q, k, v):  # (batch, heads, queries, width), (batch, kv_heads, keys, width or values)
        kernels, self.q, self.k, self.v = self.kernels, q, k, v
        out = log_sum_exp = None
        q = self._by_keys(q)
        for rank, k_block, v_block in self._blocks():
            queries, keys, is_causal = self._seen(rank)
            parts = self._rows(queries, q), self._rows(keys, k_block), self._rows(keys, v_block)
            found = kernels.attention(*parts, self.scale, is_causal)
            if out is None:  # the rank's own block, to which all its queries attend
                out, log_sum_exp = found
            else:
                merge(kernels, self._rows(queries, out), kernels.index(log_sum_exp, (..., queries)), *found)
        self.log_sum_exp = log_sum_exp  # (batch, kv_heads, queries a key, queries)
        self.y = kernels.reshape(out, (*self.q.shape[:3], v.shape[-1]))
        return self.y

    def backward(self, grad):  # (batch, heads, queries, values)
        kernels = self.kernels
        q, grad, out = self._by_keys(self.q), self._by_keys(grad), self._by_keys(self.y)
        grad_q = arriving = None
        for rank, k_block, v_block in self._blocks():
            queries, keys, is_causal = self._seen(rank)
            of_q, of_k, of_v = kernels.attention_grad(
                *(self._rows(queries, x) for x in (grad, q)), *(self._rows(keys, x) for x in (k_block, v_block)),
                self._rows(queries, out), kernels.index(self.log_sum_exp, (..., queries)), self.scale, is_causal,
            )  # fmt: skip
            if grad_q is None:
                grad_q = of_q
            else:
                kernels.accumulate(self._rows(queries, grad_q), of_q)
            of_keys = [unbroadcast(kernels, g, (*g.shape[:2], 1, *g.shape[3:])) for g in (of_k, of_v)]
            if arriving is None:
                so_far = self._joined(*of_keys)
            else:  # what the ranks before have added up for the keys of this block
                so_far = arriving.wait()
                for total, g in zip(self._apart(so_far), of_keys, strict=True):
                    kernels.accumulate(self._rows(keys, total), g)
            sending, arriving = self._pass_on(so_far)
        grad_k, grad_v = self._apart(arriving.wait())  # those of this rank's own keys have come home
        sending.wait()
        grads = zip((grad_q, grad_k, grad_v), (self.q, self.k, self.v), strict=True)
        return tuple(kernels.reshape(g, x.shape) for g, x in grads)

    def _seen(self, rank: int) -> tuple[slice, slice, bool]:
        """Which queries of this rank attend to which keys of `rank`, and whether each only to the keys up to it."""
        whole, half = slice(None), self.k.shape[2] // 2
        if not self.is_causal or rank == self.group.rank:
            return whole, whole, self.is_causal
        if rank < self.group.rank:  # its late chunk comes after both of this rank's
            return whole, slice(half), False
        return slice(half, None), whole, False  # this rank's early chunk comes before both of it

    # Round the ring

    def _blocks(self) -> Iterator[tuple]:
        """(rank, its keys, its values) of every rank, this one first, then from left to left."""
        group, block = self.group, self._joined(self.k, self.v)
        for step in range(group.size):
            last = step == group.size - 1
            sending, arriving = (None, None) if last else self._pass_on(block)
            yield (group.rank - step) % group.size, *self._apart(block)
            if not last:
                sending.wait()
                block = arriving.wait()

    def _pass_on(self, block):
        """Begin to send `block` to the right and to receive another from the left: the two handles."""
        group, room = self.group, self.kernels.empty(block.shape, block.dtype)
        sending = group.send(block, (group.rank + 1) % group.size, async_op=True)
        return sending, group.recv(room, (group.rank - 1) % group.size, async_op=True)

    def _joined(self, k, v):
        """Keys and values, or their gradients, as one flat array: a step sends one message."""
        kernels = self.kernels
        block = kernels.empty((self.k.size + self.v.size,), k.dtype)
        for place, x in zip(self._apart(block), (k, v), strict=True):
            kernels.assign(place, kernels.reshape(x, place.shape))
        return block

    def _apart(self, block):
        """The keys and values that `_joined` put together, as views (batch, kv_heads, 1, keys, width or values)."""
        kernels, size = self.kernels, self.k.size
        flat = kernels.index(block, (slice(size),)), kernels.index(block, (slice(size, None),))
        shapes = ((*x.shape[:2], 1, *x.shape[2:]) for x in (self.k, self.v))
        return [kernels.reshape(x, shape) for x, shape in zip(flat, shapes, strict=True)]

    def _by_keys(self, x):
        """(batch, heads, queries, n) -> (batch, kv_heads, heads that share a key, queries, n)."""
        batch, heads, queries, n = x.shape
        groups = self.k.shape[1]
        return self.kernels.reshape(x, (batch, groups, heads // groups, queries, n))

    def _rows(self, rows: slice, x):
        return self.kernels.index(x, (..., rows, slice(None)))


def merge(kernels, out, log_sum_exp, block, block_log_sum_exp):
    """Make of the attention to some keys, in place, that to the keys of `block` too.

    out, block: (..., queries, values). Both are weighed by their share of the sum of all exponentials.
    """
    apart = kernels.subtract(block_log_sum_exp, log_sum_exp)
    share = kernels.reshape(kernels.sigmoid(apart), (*apart.shape, 1))
    kernels.accumulate(out, kernels.multiply(kernels.subtract(block, out), share))
    # log(e^a + e^b) = max(a, b) + log(1 + e^-|a - b|), which does not overflow
    smaller = kernels.log1p(kernels.exp(kernels.negative(kernels.absolute(apart))))
    kernels.assign(log_sum_exp, kernels.add(kernels.maximum(log_sum_exp, block_log_sum_exp), smaller))


def ring_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    group: ProcessGroup | None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale Q K^T) V where the sequence is split over `group`: this rank's part of it (Liu et al. 2023).

    query (batch, heads, queries, width), key (batch, kv_heads, keys, width) and value (batch, kv_heads, keys, values)
    are this rank's; the result is (batch, heads, queries, values). A key and its value serve heads / kv_heads heads of
    the query. All ranks have as many keys. is_causal: a query sees the keys up to its position in the whole sequence,
    of which rank r has `sequence.positions(n, r, size)`, and every rank has as many products. scale: 1 / sqrt(width).

    A step sends one message of batch * kv_heads * keys * (width + values) numbers: forward size - 1 of them, backward
    size - 1 and, with the gradients, size. Backward keeps nothing that grows with the ring.

    None, or a group of one rank, makes it `scaled_dot_product_attention`. ValueError where the shapes do not fit.
    """
    _check(query, key, value)
    if group is None or group.size == 1:
        grouped = query.shape[1] != key.shape[1]
        return ops.scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scale, enable_gqa=grouped)
    queries, keys = query.shape[2], key.shape[2]
    if is_causal and (queries != keys or keys % 2):
        raise ValueError(
            f"ring_attention: of a causal sequence a rank has two chunks, equally long, as queries and as keys, "
            f"not {queries} queries and {keys} keys"
        )
    if not keys:
        raise ValueError("ring_attention needs at least one key on each rank")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return RingAttention(group, scale, is_causal)(query, key, value)


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    shapes = f"query {query.shape}, key {key.shape}, value {value.shape}"
    if not query.ndim == key.ndim == value.ndim == 4:
        raise ValueError(f"ring_attention needs (batch, heads, sequence, width) of each, not {shapes}")
    if key.shape[:3] != value.shape[:3] or (query.shape[0], query.shape[3]) != (key.shape[0], key.shape[3]):
        raise ValueError(
            f"ring_attention needs one batch, keys as wide as queries, and values of as many heads and positions as "
            f"keys, not {shapes}"
        )
    if not key.shape[1] or query.shape[1] % key.shape[1]:
        raise ValueError(f"ring_attention needs the heads of query to be a multiple of key's, not {shapes}")
