"""A mixture of experts, spread over a group: feed-forward layers of which each token takes a few (Shazeer et al. 2017).

A router chooses experts for each token. Each expert has a fixed number of slots, so that all shapes are known
beforehand. Two all-to-alls in forward, and two in backward, bring the slots to the ranks of their experts and back
(Lepikhin et al. 2020, "GShard").
"""

import math
from collections.abc import Sequence

from minidl import ops
from minidl.creation import arange, full, tensor
from minidl.nn import init
from minidl.nn.cut import Cut
from minidl.nn.layers import Linear
from minidl.nn.module import Module
from minidl.nn.parameter import Buffer, Parameter
from minidl.op import Op
from minidl.parallel.conjugates import AllReduce, CollectiveOp, Gather, Replicate, Slice
from minidl.parallel.group import ProcessGroup
from minidl.parallel.layers import SEQUENCE, check_divisible, useful
from minidl.parallel.uneven import sizes_everywhere
from minidl.tensor import Tensor
from minidl.validation import check_positive

EXPERTS = ("gelu", "swiglu")


class AllToAll(CollectiveOp):
    """Forward: part `rank` along dimension 0 of every rank's input, joined. Backward: the gradients go back.

    sent, received: rows for each rank, and from each.
    """

    def __init__(self, group: ProcessGroup, sent: Sequence[int], received: Sequence[int]):
        super().__init__(group)
        self.sent, self.received = tuple(sent), tuple(received)

    def forward(self, x):
        return self.group.all_to_all(x, self.received, self.sent)

    def backward(self, grad):
        return self.group.all_to_all(grad, self.sent, self.received)


class SumRows(Op):
    """Row i of the result: the sum of the rows of x (n, width) that `index` (m, times) has in row i, -1 for none.

    back: (n, times), the rows of the result to which each row of x goes, -1 for none. So backward is the same sum with
    the two exchanged, and no two writes meet.
    """

    once_differentiable = "its indices stay with the op"

    def __init__(self, index: Tensor, back: Tensor):
        self.index, self.back = index.data, back.data

    def forward(self, x):
        return self._sum(x, self.index)

    def backward(self, grad):
        return self._sum(grad, self.back)

    def _sum(self, x, index):
        k, (rows, times) = self.kernels, index.shape
        there = k.reshape(k.greater_equal(index, 0), (rows, times, 1))
        found = k.masked(k.embedding(x, k.maximum(index, 0)), there)  # (rows, times, width)
        return k.reshape(found, (rows, x.shape[1])) if times == 1 else k.sum(found, (1,), False)


class MixtureOfExperts(Module):
    """x (batch, sequence, hidden) -> y of that shape, and the load-balancing loss (batch,) of each sample.

    Each token goes to the `top_k` of the experts that the router finds most probable; y is the sum of what they make of
    it, weighted by these probabilities: divided by their sum (GShard, algorithm 1), unless top_k is 1 (Fedus et al.
    2021, "Switch Transformers", equation 2: else the router would get no gradient).

    In each sample an expert has `capacity(sequence)` slots, given to first choices before second ones, and in the order
    of the tokens. A choice that finds no slot is dropped: it adds nothing to y, and the residual connection around the
    layer carries the token on. As samples do not compete for slots, y does not depend on how a batch is cut.

    The loss of a sample is experts * sum of f_e P_e over the experts e (Switch, equation 4): f_e is the fraction of its
    choices that go to e, dropped ones included, and P_e the mean probability of e, through which alone gradients go. It
    is 1 where all experts are used alike.

    dropped: how many choices were dropped and how many made, (2,) of int64, since the beginning and in training alone.
    As with running statistics, each rank counts those of its own samples, and an evaluation leaves the first one's.

    feed_forward: "gelu", or the gated "swiglu". expert_group: its ranks have experts / size of them each, and each its
    own samples. tensor_group: its ranks have the same samples, and inner / size features of each expert; with
    sequence_parallel slices of their sequences, which are gathered. None or a group of one rank: nothing is
    communicated. whole_experts: the tensor ranks do not share the features of experts but are in the expert_group too:
    each brings some of the slots of its samples to experts that are whole, which is less to communicate. ValueError for
    sizes that do not fit.
    """

    def __init__(
        self,
        hidden: int,
        inner: int,
        experts: int,
        top_k: int = 2,
        capacity_factor: float = 1.25,
        expert_group: ProcessGroup | None = None,
        tensor_group: ProcessGroup | None = None,
        bias: bool = True,
        feed_forward: str = "gelu",
        sequence_parallel: bool = False,
        whole_experts: bool = False,
    ):
        self.expert_group, self.tensor_group = useful(expert_group), useful(tensor_group)
        self.whole_experts = whole_experts and self.tensor_group is not None
        self.feature_group = None if self.whole_experts else self.tensor_group
        for what, size, group in (("experts", experts, self.expert_group), ("inner", inner, self.feature_group)):
            check_divisible("MixtureOfExperts", what, size, group)
        if not 1 <= top_k <= experts:
            raise ValueError(f"top_k={top_k} is not between 1 and experts={experts}")
        check_positive("capacity_factor", capacity_factor)
        if feed_forward not in EXPERTS:
            raise ValueError(f"feed_forward={feed_forward!r}, choose one of {', '.join(EXPERTS)}")
        self.experts, self.top_k, self.capacity_factor = experts, top_k, capacity_factor
        self.gated = feed_forward == "swiglu"
        self.sequence_parallel = sequence_parallel and self.tensor_group is not None

        def part(*shape: int, inner_dim: int | None = None, parts: int = 1) -> Cut:
            cut = Cut(shape)
            if group := self.expert_group:
                cut = cut.split(0, group.rank, group.size, axes=group.axes)
            if inner_dim is not None and (group := self.feature_group):
                cut = cut.split(inner_dim, group.rank, group.size, parts, axes=group.axes)
            return cut

        halves = 2 if self.gated else 1  # gate and up are the halves of one matrix
        into, out_of = init.fan_in_uniform(hidden), init.fan_in_uniform(inner)
        self.router = Linear(hidden, experts, bias=False)
        self.up = Parameter(part(experts, hidden, halves * inner, inner_dim=2, parts=halves), init=into)
        self.down = Parameter(part(experts, inner, hidden, inner_dim=1), init=out_of)
        self.up_bias = self.down_bias = None
        if bias:
            self.up_bias = Parameter(part(experts, 1, halves * inner, inner_dim=2, parts=halves), init=into)
            self.down_bias = Parameter(part(experts, 1, hidden), init=out_of)
        self.dropped = Buffer((2,), init=init.zeros(), dtype="int64")

    def capacity(self, sequence: int) -> int:
        """The slots that each expert has in a sample: capacity_factor times an even share of the choices, rounded up.

        At most as many as there are tokens, as none chooses an expert twice.
        """
        even_share = self.capacity_factor * self.top_k * sequence / self.experts
        return min(sequence, math.ceil(round(even_share, 9)))  # 1.1 * 100 / 2 is a little more than 55

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.sequence_parallel:
            x = Gather(self.tensor_group, SEQUENCE)(x)
        batch, sequence, hidden = x.shape
        probabilities = ops.softmax(self.router(x), -1)  # (batch, sequence, experts)
        gates, choices = ops.topk(probabilities, self.top_k)  # (batch, sequence, top_k)
        if self.top_k > 1:
            gates = gates / gates.sum(-1, keepdim=True)
        choices = choices.permute(0, 2, 1).reshape(batch, self.top_k * sequence)  # all first ones, then the second
        chosen = ops.one_hot(choices, self.experts)  # (batch, choices, experts)
        balance = self.experts * (chosen.to(x.dtype).mean(1) * probabilities.mean(1)).sum(1)  # (batch,)

        slot_of = self._slots(choices, chosen, sequence)  # (tokens, top_k)
        slots = self.experts * batch * self.capacity(sequence)
        choice_of = _inverse(slot_of, slots)  # (slots, 1), of the choices as `gates` has them
        token_of = ops.floor_divide(choice_of, self.top_k)
        if self.training:
            self._count(slot_of)

        if self.tensor_group:  # before the tokens go into slots, which are more
            x = Replicate(self.tensor_group)(x)
        if self.whole_experts:
            gates = Replicate(self.tensor_group)(gates)
            slot_of, token_of, choice_of = self._own(slot_of, token_of, choice_of)
            slots = token_of.shape[0]
        filled = SumRows(token_of, slot_of)(x.reshape(batch * sequence, hidden))
        y = self._through_experts(filled.reshape(self.experts, slots // self.experts, hidden))
        weights = SumRows(choice_of, slot_of.reshape(slot_of.numel(), 1))(gates.reshape(slot_of.numel(), 1))
        y = SumRows(slot_of, token_of)(y.reshape(slots, hidden) * weights).reshape(batch, sequence, hidden)
        if self.whole_experts:
            y = AllReduce(self.tensor_group, in_place=True)(y)
        return (Slice(self.tensor_group, SEQUENCE)(y) if self.sequence_parallel else y), balance

    def _slots(self, choices: Tensor, chosen: Tensor, sequence: int) -> Tensor:
        """The slot of each token's choices (tokens, top_k), -1 for those that are dropped.

        The slots of an expert lie together, and of these those of a sample.
        """
        batch, capacity = choices.shape[0], self.capacity(sequence)
        before = ops.gather(ops.cumsum(chosen, 1), 2, choices.unsqueeze(2)).squeeze(2) - 1  # of the same expert
        sample = arange(batch, device=choices.device).reshape(batch, 1)
        slot = (choices * batch + sample) * capacity + before
        slot = ops.where(before < capacity, slot, -1).reshape(batch, self.top_k, sequence)
        return slot.permute(0, 2, 1).reshape(batch * sequence, self.top_k)

    def _own(self, slot_of: Tensor, *of_slots: Tensor) -> tuple[Tensor, ...]:
        """Of the slots of each expert those that this one of the tensor ranks brings: a part, in their order.

        slot_of: as `_slots` gives it, of_slots: (slots, 1); the same of the part, -1 where a slot is another rank's.
        """
        rank, size, each = self.tensor_group.rank, self.tensor_group.size, of_slots[0].shape[0] // self.experts
        first, last = rank * each // size, (rank + 1) * each // size
        expert = ops.floor_divide(slot_of, each)
        place = slot_of - expert * each
        own = ops.logical_and(slot_of >= 0, ops.logical_and(place >= first, place < last))
        slot_of = ops.where(own, expert * (last - first) + place - first, -1)
        parts = (x.reshape(self.experts, each)[:, first:last] for x in of_slots)
        return slot_of, *(part.reshape(self.experts * (last - first), 1) for part in parts)

    def _count(self, slot_of: Tensor) -> None:
        made = tensor(slot_of.numel(), device=slot_of.device)
        counted = ops.stack([(slot_of < 0).sum(), made])
        counted.kernels.accumulate(self.dropped.data, counted.data)

    def _through_experts(self, x: Tensor) -> Tensor:
        """x (experts, slots, hidden) of this rank's samples -> the same of what the experts make of them."""
        if self.expert_group is None:
            return self._feed_forward(x)
        experts, slots, hidden = x.shape
        group, own = self.expert_group, experts // self.expert_group.size
        theirs = sizes_everywhere(group, slots)  # those of a short batch may have other samples to bring
        here, there = [own * slots] * group.size, [own * n for n in theirs]
        x = AllToAll(group, here, there)(x.reshape(experts * slots, hidden))
        y = self._feed_forward(_by_expert(x, own, theirs))  # (own, slots of all ranks, hidden)
        return AllToAll(group, there, here)(_by_rank(y, theirs)).reshape(experts, slots, hidden)

    def _feed_forward(self, x: Tensor) -> Tensor:
        """x (local experts, slots, hidden) -> the same shape."""
        y = ops.matmul(x, self.up)  # (local experts, slots, local inner, or twice that)
        if self.up_bias is not None:
            y = y + self.up_bias
        y = ops.swiglu(y) if self.gated else ops.gelu(y, "tanh")
        y = ops.matmul(y, self.down)
        if self.feature_group:
            y = AllReduce(self.feature_group, in_place=True)(y)
        return y if self.down_bias is None else y + self.down_bias

    def extra_repr(self):
        experts, hidden, _ = self.up.cut.whole
        inner = self.down.cut.whole[1]
        return f"{hidden}, {inner}, experts={experts}, top_k={self.top_k}, capacity_factor={self.capacity_factor}"


def _by_expert(x: Tensor, own: int, slots: Sequence[int]) -> Tensor:
    """Slots (rows, hidden) as they come, from rank after rank those of `own` experts, as (own, all slots, hidden)."""
    hidden, ranks = x.shape[-1], len(slots)
    if len(set(slots)) == 1:  # the same in one copy, however many ranks there are
        return x.reshape(ranks, own, slots[0], hidden).permute(1, 0, 2, 3).reshape(own, ranks * slots[0], hidden)
    parts = ops.split(x, [own * n for n in slots], 0)
    return ops.cat([part.reshape(own, n, hidden) for part, n in zip(parts, slots, strict=True)], 1)


def _by_rank(y: Tensor, slots: Sequence[int]) -> Tensor:
    """The opposite of `_by_expert`."""
    (own, total, hidden), ranks = y.shape, len(slots)
    if len(set(slots)) == 1:
        return y.reshape(own, ranks, slots[0], hidden).permute(1, 0, 2, 3).reshape(own * total, hidden)
    parts = ops.split(y, slots, 1)
    return ops.cat([part.reshape(own * n, hidden) for part, n in zip(parts, slots, strict=True)], 0)


def _inverse(places: Tensor, count: int) -> Tensor:
    """Of places (...) from 0 to count - 1, or -1, none twice: which of them, counted flat, is at each: (count, 1)."""
    given, device = places.reshape(places.numel()), places.device
    given = ops.where(given < 0, count, given)  # to one place more, which is left out
    found = ops.scatter(full((count + 1,), -1, device=device), 0, given, arange(places.numel(), device=device))
    return found[:count].reshape(count, 1)
