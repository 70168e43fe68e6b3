"""Costs: what each instruction calls, and the bytes that it moves: looked up in profile and layout, never stated.

The simulator prices the calls, lays the bytes on links and adds up memory; the checker proves the collectives inside
layers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from operator import attrgetter

from minidl.events import Details
from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.parallel import instructions as I
from minidl.parallel.block_profile import BlockProfile, Call
from minidl.parallel.bucket_parameters import BucketParameters
from minidl.parallel.buffer_bytes import BufferBytes
from minidl.parallel.chain_profile import ChainProfile
from minidl.parallel.dependencies import Node
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.instructions.buffers import APART
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import Axis
from minidl.parallel.parameter_profile import ParameterProfile
from minidl.parallel.plan import Plan
from minidl.parallel.remembered import Remembered

KNOWN = Remembered(512)  # what is alike, and updates of shares
MEASURE, UPDATE = attrgetter("measure"), attrgetter("update")


class Costs:
    """Those of a chain with this profile, cut as `layout` says, under `plan`; of one rank for all that do alike."""

    def __init__(self, plan: Plan, layout: Layout, profile: ChainProfile):
        self.plan, self.layout, self.profile = plan, layout, profile
        self.parameters = BucketParameters(plan, layout, profile)
        self.bytes = BufferBytes(self.parameters)
        self._updates: dict[tuple, Sequence[Call]] = {}  # of buckets that are alike
        self._details: dict[tuple[int, Instruction], Details] = {}

    def alike(self, i: Instruction) -> tuple:
        """Equal for instructions that cost the same, though they be of other chunks."""
        return i.work if isinstance(i, I.CustomInstruction) else i.work_in(self._alike)

    def alike_nodes(self, nodes: Sequence[Node]) -> list[int]:
        """For each the place of the first one whose instructions cost the same, whichever ranks do them.

        What a message takes depends on its ends, so each is by itself; and some coordinates of an axis may lie apart.
        """
        return KNOWN.get_for((nodes, self._alike), "nodes", lambda: self._first_alike(nodes))

    def _first_alike(self, nodes: Sequence[Node]) -> list[int]:
        first: dict[tuple, int] = {}
        return [
            first.setdefault((node.ends, node.inside, *(self.alike(i) for _, i in node.members)), n)
            if all(i.kind == "compute" or i.kind == "collective" and i.is_whole for _, i in node.members)
            else n
            for n, node in enumerate(nodes)
        ]

    @cached_property
    def _alike(self) -> dict[int, int]:
        """For each chunk the first one with equal buckets, after an equal block, whose output it takes."""
        return KNOWN.get_for((self.profile, self.layout), "chunks", self._found_alike)

    def _found_alike(self) -> dict[int, int]:
        blocks, first = self.profile.blocks, {}
        found = {}
        for chunk, (start, _) in enumerate(self.layout.chunks):
            before = id(blocks[start - 1]) if start else None
            own = tuple(self._bucket(chunk, bucket) for bucket in range(len(self.layout.buckets[chunk])))
            found[chunk] = first.setdefault((before, own), chunk)
        return found

    def _bucket(self, chunk: int, bucket: int) -> tuple:
        """What decides on the costs of a bucket: its blocks, and which of their parameters it has, for whom."""
        place = chunk, bucket
        blocks = tuple(map(id, self._blocks(chunk, [bucket])))
        return blocks, id(self.parameters.of(place)), self.layout.reduction(*place), self.layout.is_trained(*place)

    # Calls

    def calls(self, i: Instruction) -> tuple[Call, ...]:
        """The kernel calls, and the collectives inside layers, of an instruction that computes, in order."""
        return tuple(chain.from_iterable(self.calls_by_block(i)))

    def calls_by_block(self, i: Instruction) -> list[Sequence[Call]]:
        """The same, block by block; blocks that are alike have the very same sequence of calls."""
        if isinstance(i, I.CustomInstruction):
            return [i.calls(self)]
        return CALLS[type(i)](self, i)

    def collectives(self, i: Instruction) -> Iterator[CollectiveCall]:
        """The collectives inside layers of an instruction that computes, in the order in which they begin."""
        return (call for call in self.calls(i) if isinstance(call, CollectiveCall) and call.phase != "wait")

    def layer_axes(self) -> list[tuple[Axis, ...]]:
        """The axes over which layers communicate, in an order that all ranks agree on."""
        return sorted({call.axes for call in self.layer_calls()}, key=str)

    def layer_calls(self) -> Iterator[CollectiveCall]:
        """The collectives inside layers, of blocks that are alike once, and inside the loss."""
        profile = self.profile
        of_loss = (call for call in (*profile.loss, *profile.score) if isinstance(call, CollectiveCall))
        return chain(chain.from_iterable(block.collectives for block in profile.kinds), of_loss)

    def _blocks(self, chunk: int, buckets: Iterable[int]) -> Iterator[BlockProfile]:
        for bucket in buckets:
            yield from self.profile.blocks[slice(*self.layout.buckets[chunk][bucket])]

    def _forward(self, i: I.Forward) -> list[Sequence[Call]]:
        return [block.forward for block in self._blocks(i.chunk, i.buckets)]

    def _recompute(self, i: I.Recompute) -> list[Sequence[Call]]:
        return [block.recompute for block in self._blocks(i.chunk, i.buckets)]

    def _infer(self, i: I.Infer) -> list[Sequence[Call]]:
        return [block.infer for block in self._blocks(i.chunk, i.buckets)]

    def _backward(self, i: I.Backward) -> list[Sequence[Call]]:
        blocks = reversed(list(self._blocks(i.chunk, i.buckets)))
        return [block.accumulate if i.accumulates else block.backward for block in blocks]

    def _backward_input(self, i: I.BackwardInput) -> list[Sequence[Call]]:
        return [block.halves.inputs for block in reversed(list(self._blocks(i.chunk, i.buckets)))]

    def _backward_weights(self, i: I.BackwardWeights) -> list[Sequence[Call]]:
        blocks = reversed(list(self._blocks(i.chunk, i.buckets)))
        return [block.halves.accumulate if i.accumulates else block.halves.weights for block in blocks]

    def _add_share(self, i: I.AddShare) -> list[Sequence[Call]]:
        """One kernel on this replica's share of the bucket."""
        share = self.parameters.flat((i.chunk, i.bucket), share=True)
        with meta.record() as calls:
            (meta.accumulate if i.accumulates else meta.assign)(share, share)
        return [calls]

    def _measure(self, i: I.MeasureParameters) -> list[Sequence[Call]]:
        return [self._updated(i.buckets, MEASURE)]

    def _update(self, i: I.OptimizerStep) -> list[Sequence[Call]]:
        return [self._updated(i.buckets, UPDATE)]

    def _updated(self, buckets, calls_of: Callable[[ParameterProfile], Sequence[Call]]) -> Sequence[Call]:
        """Calls for a replica's share of each bucket: of the one that makes most, with whom the step ends."""
        replica = self.parameters.busiest_share(buckets, lambda p: sum(call.kind != "view" for call in calls_of(p)))
        shares = [self.parameters.share(place, replica) for place in buckets]
        key = (calls_of, *map(id, shares))
        if key not in self._updates:
            parts = tuple((calls_of(parameter), part) for share in shares for parameter, part in share)
            found = tuple((id(calls), part) for calls, part in parts)
            _, self._updates[key] = KNOWN.get(found, lambda: (parts, _calls_of_parts(parts)))
        return self._updates[key]

    # Bytes

    def bytes_of(self, buffer: BufferName) -> dict[Hashable, int]:
        """The storages in which a buffer lies, and the bytes of each; what two buffers share has the same key."""
        return self.bytes.of(buffer)

    def master_bytes(self, stage: int) -> int:
        """Of a float32 copy of this rank's share of all parameters that are updated."""
        shares = (self.parameters.share(place, 0) for place in self.layout.trained(stage))
        return round(sum(p.nbytes * part for share in shares for p, part in share if p.update))

    def payload_bytes(self, i: Instruction) -> float:
        """What a message or a collective moves in the plan's precision: of the whole array, if it is sharded."""
        whole = sum(map(self.bytes.moved, i.payload))
        return whole if any(map(self.bytes.is_full_precision, i.payload)) else whole * self.plan.scale

    def details(self, rank: int, i: Instruction) -> Details:
        """What a trace tells of an instruction of `rank`."""
        if (rank, i) not in self._details:
            self._details[rank, i] = Details(
                stage=self.plan.mesh(rank).coordinate("pipeline"),
                chunk=None if getattr(i, "chunk", None) == APART else getattr(i, "chunk", None),
                blocks=self._touched_blocks(i),
                micro_batch=getattr(i, "micro_batch", None),
                nbytes=None if i.kind == "compute" else round(self.payload_bytes(i)),
                to=getattr(i, "to", None),
                source=getattr(i, "source", None),
                message=getattr(i, "message", None),
            )
        return self._details[rank, i]

    def _touched_blocks(self, i: Instruction) -> tuple[int, int] | None:
        """The first and the last block whose parameters or gradients it touches, where these are of one chunk."""
        if isinstance(i, I.ThroughBuckets):
            places = {(i.chunk, b) for b in i.buckets}
        else:
            named = {(b.chunk, b.bucket) for b in (*i.reads, *i.writes) if b.holds in ("parameters", "gradients")}
            places = {(chunk, bucket) for chunk, bucket in named if chunk != APART}
        if len({chunk for chunk, _ in places}) != 1:
            return None
        ranges = [self.layout.buckets[chunk][bucket] for chunk, bucket in places]
        return min(start for start, _ in ranges), max(end for _, end in ranges) - 1


def _calls_of_parts(parts: Iterable[tuple[Sequence[Call], float]]) -> Sequence[Call]:
    return tuple(call for calls, part in parts for call in part_of(calls, part))


def part_of(calls: Sequence[Call], part: float) -> Iterator[Call]:
    """The calls that update such a part of a parameter; views are made of all of it."""
    for call in calls:
        if call.kind == "view" or part == 1:
            yield call
        elif part:
            numbers = {name: getattr(call, name) * part for name in ("flops", "bytes_read", "bytes_written")}
            yield replace(call, **numbers)


def _load(array: MetaArray) -> list[Call]:
    return [KernelCall("load", "copy", (array.shape,), array.dtype.name, 0, array.nbytes, array.nbytes)]


CALLS: dict[type[Instruction], Callable[[Costs, Instruction], list[Sequence[Call]]]] = {
    I.LoadInput: lambda costs, i: [_load(costs.profile.input)],
    I.LoadTarget: lambda costs, i: [_load(costs.profile.target)],
    I.Forward: Costs._forward,
    I.Recompute: Costs._recompute,
    I.Infer: Costs._infer,
    I.Loss: lambda costs, i: [costs.profile.loss],
    I.Score: lambda costs, i: [costs.profile.score],
    I.Backward: Costs._backward,
    I.BackwardInput: Costs._backward_input,
    I.BackwardWeights: Costs._backward_weights,
    I.AddShare: Costs._add_share,
    I.MeasureParameters: Costs._measure,
    I.OptimizerStep: Costs._update,
    I.EndEvaluation: lambda costs, i: [],
}
