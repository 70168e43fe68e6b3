"""Costs: what each instruction calls, and what each buffer holds: looked up in profile and layout, never stated.

The simulator prices the calls, lays the bytes on links and adds up memory; the checker proves the collectives inside
layers. The flat arrays of the worker have the same sizes by the same functions, those of layout.py.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from minidl.events import Details
from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.parallel import instructions as I
from minidl.parallel.block_profile import BlockProfile, Call, Kept, ParameterProfile
from minidl.parallel.blocks import several
from minidl.parallel.chain_profile import ChainProfile
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.instructions import BufferName, Instruction
from minidl.parallel.instructions.buffers import APART, GATHERED, LOCAL
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import REPLICAS, Axis
from minidl.parallel.plan import Plan
from minidl.parallel.shares import flat_elements, parts
from minidl.parallel.slots import slots

FLOAT64 = 8  # bytes of the sums that ranks reduce


class Totals(NamedTuple):
    """What is reduced of a batch: the sum of the losses and its weight; in evaluation, how many answers were right."""

    loss: float
    weight: float
    correct: float
    answers: float


class Costs:
    """Those of a chain with this profile, cut as `layout` says, under `plan`; of one rank for all that do alike."""

    def __init__(self, plan: Plan, layout: Layout, profile: ChainProfile):
        self.plan, self.layout, self.profile = plan, layout, profile
        self._bytes: dict[BufferName, dict[Hashable, int]] = {}
        self._details: dict[tuple[int, Instruction, float], Details] = {}
        self._apart = {holder for apart in layout.apart for holder in apart.holders}

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
        """All collectives inside layers, and inside the loss."""
        profile = self.profile
        of_blocks = (call for block in profile.blocks for call in (*block.forward, *block.backward, *block.infer))
        calls = chain(of_blocks, profile.loss, profile.score)
        return (call for call in calls if isinstance(call, CollectiveCall))

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
        return [block.backward_input for block in reversed(list(self._blocks(i.chunk, i.buckets)))]

    def _backward_weights(self, i: I.BackwardWeights) -> list[Sequence[Call]]:
        blocks = reversed(list(self._blocks(i.chunk, i.buckets)))
        return [block.accumulate_weights if i.accumulates else block.backward_weights for block in blocks]

    def _add_share(self, i: I.AddShare) -> list[Sequence[Call]]:
        """One kernel on this replica's share of the bucket."""
        share = self._flat((i.chunk, i.bucket), share=True)
        with meta.record() as calls:
            (meta.accumulate if i.accumulates else meta.assign)(share, share)
        return [calls]

    def _measure(self, i: I.MeasureParameters) -> list[Sequence[Call]]:
        return [self._updated(i.buckets, lambda parameter: parameter.measure)]

    def _update(self, i: I.OptimizerStep) -> list[Sequence[Call]]:
        return [self._updated(i.buckets, lambda parameter: parameter.update)]

    def _updated(self, buckets, calls_of: Callable[[ParameterProfile], Sequence[Call]]) -> Sequence[Call]:
        """Calls for a replica's share of each bucket: of the one that makes most, with whom the step ends."""
        by_share = (
            [
                call
                for chunk, bucket in buckets
                for parameter, part in self._share(chunk, bucket, share)
                for call in part_of(calls_of(parameter), part)
            ]
            for share in range(self.plan.shards(REPLICAS))
        )
        return max(by_share, key=len)

    def _share(self, chunk: int, bucket: int, share: int) -> Iterator[tuple[ParameterProfile, float]]:
        """Each trained parameter of a bucket, and which part of it a replica updates: of 0 to 1."""
        parameters = [p for p in self._bucket(chunk, bucket) if p.trained]
        shards = self._shards(chunk, bucket)
        found = parts([p.elements for p in parameters], share % shards, shards)
        return ((p, (part.stop - part.start) / max(p.elements, 1)) for p, part in zip(parameters, found, strict=True))

    def _shards(self, chunk: int, bucket: int) -> int:
        """Into how many parts the update of a bucket is cut."""
        return self.plan.shards(self.layout.reduction(chunk, bucket).replicas)

    def _bucket(self, chunk: int, bucket: int) -> list[ParameterProfile]:
        """The parameters of a bucket; what is apart makes one of its own."""
        if chunk == APART:  # of several holders the last one is trained, if any is
            last = (holders[-1] for holders in self.layout.apart[bucket].parameters)
            return [self.profile.blocks[block].parameters[place] for block, place in last]
        return [
            p
            for block in range(*self.layout.buckets[chunk][bucket])
            for place, p in enumerate(self.profile.blocks[block].parameters)
            if (block, place) not in self._apart
        ]

    # Bytes

    def bytes_of(self, buffer: BufferName) -> dict[Hashable, int]:
        """The storages in which a buffer lies, and the bytes of each; what two buffers share has the same key."""
        if buffer not in self._bytes:
            self._bytes[buffer] = BYTES[buffer.holds](self, buffer)
        return self._bytes[buffer]

    def is_full_precision(self, buffer: BufferName) -> bool:
        """Whether it is the same in training of lower precision: whole numbers, statistics, sums, what updates keep."""
        if buffer.holds == "activation" and self._end(buffer.chunk, buffer.bucket) == 0:
            return self.profile.input.dtype.kind in "iu"
        return buffer.holds in ("state", "statistics", "target", "total", "norm", "norms")

    def master_bytes(self, stage: int) -> int:
        """Of a float32 copy of this rank's share of all parameters that are updated."""
        shares = (self._share(*place, share=0) for place in self.layout.trained(stage))
        return round(sum(p.nbytes * part for share in shares for p, part in share if p.update))

    def payload_bytes(self, i: Instruction, scale: float = 1.0) -> float:
        """What a message or a collective moves: of the whole array, before or after, the larger.

        scale: bytes of a number in the precision of training, relative to that of the profile.
        """
        whole = sum(self._moved(buffer) for buffer in i.payload)
        return whole if any(map(self.is_full_precision, i.payload)) else whole * scale

    def details(self, rank: int, i: Instruction, scale: float = 1.0) -> Details:
        """What a trace tells of an instruction of `rank`. scale: see `payload_bytes`."""
        if (rank, i, scale) not in self._details:
            self._details[rank, i, scale] = Details(
                stage=self.plan.mesh(rank).coordinate("pipeline"),
                chunk=None if getattr(i, "chunk", None) == APART else getattr(i, "chunk", None),
                blocks=self._touched_blocks(i),
                micro_batch=getattr(i, "micro_batch", None),
                nbytes=None if i.kind == "compute" else round(self.payload_bytes(i, scale)),
                to=getattr(i, "to", None),
                source=getattr(i, "source", None),
                message=getattr(i, "message", None),
            )
        return self._details[rank, i, scale]

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

    def _moved(self, b: BufferName) -> int:
        """Of a view of a larger storage a message has the view alone; of what is sharded a collective has the whole."""
        if b.holds in ("parameters", "gradients"):
            return self._flat((b.chunk, b.bucket)).nbytes
        if b.holds in ("activation", "output gradient"):
            arrays = self._arrays(self._end(b.chunk, b.bucket))
            return sum(a.nbytes for a in arrays if b.holds == "activation" or a.dtype.kind == "f")
        return sum(self.bytes_of(b).values())

    def _activation(self, b: BufferName) -> dict[Hashable, int]:
        place, found = self._end(b.chunk, b.bucket), {}
        for which in range(len(self._arrays(place))):
            found |= self._border(b, place, which)
        return found

    def _border(self, b: BufferName, place: int, which: int) -> dict[Hashable, int]:
        """An array that block `place` of the chain takes: that of a block before, where those between give views."""
        start = self.layout.chunks[b.chunk][0]
        while place > start and (before := self.profile.blocks[place - 1].passed[which]) is not None:
            place, which = place - 1, before
        array = self._arrays(place)[which]
        nbytes = array.nbytes if place == start else array.storage.nbytes  # what a chunk is given has no gaps
        return {("activation", b.chunk, b.micro_batch, place, which): nbytes}

    def _output_gradient(self, b: BufferName) -> dict[Hashable, int]:
        return {b: self._moved(b)}

    def _saved(self, b: BufferName) -> dict[Hashable, int]:
        return self._kept(b, lambda block: block.saved)

    def _later(self, b: BufferName) -> dict[Hashable, int]:
        return self._kept(b, lambda block: block.later)

    def _kept(self, b: BufferName, kept: Callable[[BlockProfile], Kept]) -> dict[Hashable, int]:
        found: dict[Hashable, int] = {}
        start, end = self.layout.buckets[b.chunk][b.bucket]
        for place in range(max(start, self.layout.first_trained), end):
            for array, nbytes in kept(self.profile.blocks[place]):
                name, which = array if isinstance(array, tuple) else (array, 0)
                if name in ("input", "output"):
                    found |= self._border(b, place + (name == "output"), which)
                else:
                    found[b.chunk, b.micro_batch, place, name] = nbytes
        return found

    def _parameters(self, b: BufferName) -> dict[Hashable, int]:
        held, place = self._bucket(b.chunk, b.bucket), (b.chunk, b.bucket)
        if self._shards(*place) > 1 and self.layout.is_trained(*place):
            dropped = self.plan.sharding == "parameters" and place in self._slots
            flat = self._flat(place, share=dropped)
            return {b: flat.nbytes, (b, "frozen"): sum(p.nbytes for p in held if not p.trained)}
        return {b: sum(p.nbytes for p in held)}

    def _gradients(self, b: BufferName) -> dict[Hashable, int]:
        place = b.chunk, b.bucket
        return {b: self._flat(place, share=place in self._slots).nbytes}

    def _slot(self, b: BufferName) -> dict[Hashable, int]:
        """A slot has room for the largest bucket that comes there."""
        stage, slot = b.chunk, b.bucket
        come = (place for place in self.layout.places(stage) if self._slots.get(place) == slot)
        return {b: max(self._flat(place).nbytes for place in come)}

    @cached_property
    def _slots(self) -> dict[tuple[int, int], int]:
        """Of the buckets of all stages: no two stages have the same one, but for ties, which have no slot."""
        found: dict[tuple[int, int], int] = {}
        for stage in range(len(self.layout.stages)):
            found |= slots(self.plan, self.layout, stage)
        return found

    def _flat(self, place: tuple[int, int], share: bool = False) -> MetaArray:
        """The flat array that holds the trained parameters of a bucket, or their gradients; or a replica's share."""
        parameters, shards = [p for p in self._bucket(*place) if p.trained], self._shards(*place)
        elements = sum(p.elements for p in parameters)
        item = sum(p.nbytes for p in parameters) // max(elements, 1)
        return MetaArray((flat_elements(elements, shards) // (shards if share else 1),), f"float{8 * (item or 4)}")

    def _state(self, b: BufferName) -> dict[Hashable, int]:
        return {b: round(sum(p.state_bytes * part for p, part in self._share(b.chunk, b.bucket, share=0)))}

    def _statistics(self, b: BufferName) -> dict[Hashable, int]:
        return {b: sum(block.statistics_bytes for block in self.profile.blocks[slice(*self.layout.chunks[b.chunk])])}

    def _norms(self, b: BufferName) -> dict[Hashable, int]:
        return {b: FLOAT64 * sum(p.squares for p in self._bucket(b.chunk, b.bucket))}

    def _end(self, chunk: int, bucket: int) -> int:
        """The block before which the output of a bucket lies; of bucket -1, the input of the chunk."""
        return self.layout.chunks[chunk][0] if bucket < 0 else self.layout.buckets[chunk][bucket][1]

    def _arrays(self, place: int) -> tuple[MetaArray, ...]:
        """What block `place` of the chain takes, or the loss."""
        return several(self.profile.blocks[place - 1].output if place else self.profile.input)


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

BYTES: dict[str, Callable[[Costs, BufferName], dict[Hashable, int]]] = {
    "parameters": Costs._parameters,
    "state": Costs._state,
    "statistics": Costs._statistics,
    "activation": Costs._activation,
    "saved": Costs._saved,
    "later": Costs._later,
    "output gradient": Costs._output_gradient,
    "gradients": Costs._gradients,
    GATHERED: Costs._slot,
    LOCAL: Costs._slot,
    "target": lambda costs, b: {b: costs.profile.target.nbytes},
    "loss": lambda costs, b: {},  # numbers, no array
    "total": lambda costs, b: {b: FLOAT64 * len(Totals._fields)},
    "norm": lambda costs, b: {b: FLOAT64},
    "norms": Costs._norms,
}
