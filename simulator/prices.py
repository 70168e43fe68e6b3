"""What each instruction of a program costs on a cluster: the profile's calls, priced by its device and its network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from minidl.kernels.meta import KernelCall, MetaArray
from minidl.parallel import instructions as I
from minidl.parallel.group import CollectiveCall
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.profile import Call, ChainProfile
from simulator.hardware import Cluster

TOTALS_BYTES = 4 * 8  # what ReduceLoss reduces: loss, weight, correct answers, all answers, in float64
NORM_BYTES = 8  # a sum of squares in float64


class Segment(NamedTuple):
    """A stretch of a compute instruction: kernels, or one collective inside a layer.

    contention: by what factor it is slower while all cores of a shared machine are busy.
    """

    seconds: float
    contention: float
    collective: CollectiveCall | None


class Prices:
    """Prices of a program's instructions; ranks of one stage pay the same for what they compute."""

    def __init__(self, cluster: Cluster, plan: Plan, layout: Layout, profile: ChainProfile):
        self.cluster, self.plan, self.layout, self.profile = cluster, plan, layout, profile
        self._meshes: dict[int, Mesh] = {}
        self._known: dict[tuple, object] = {}

    # Compute

    def segments(self, rank: int, instruction: I.Instruction) -> tuple[Segment, ...]:
        """The stretches of a compute instruction, in order; at least one."""
        stage = self.mesh(rank).coordinate("pipeline")
        kind = type(instruction)
        key = (kind, stage)
        if kind is I.Backward:
            key = (kind, stage, instruction.first, instruction.last, instruction.after is None)
        if key not in self._known:
            self._known[key] = self._segments(rank, CALLS[kind](self, stage, instruction))
        return self._known[key]

    def _segments(self, rank: int, calls: Sequence[Call]) -> tuple[Segment, ...]:
        compute, network = self.cluster.compute, self.cluster.network
        found: list[Segment] = []
        busy, slowed = compute.instruction_seconds, compute.instruction_seconds
        for call in calls:
            if isinstance(call, KernelCall):
                seconds, contention = self._kernel(call)
                busy, slowed = busy + seconds, slowed + seconds * contention
                continue
            found.append(Segment(busy, slowed / busy if busy else 1.0, None))
            busy = slowed = 0.0
            ranks = self.mesh(rank).ranks(*call.axis.split("+"))
            seconds = network.collective_seconds(call.name, ranks, call.nbytes * compute.scale)
            found.append(Segment(seconds, network.contention, call))
        found.append(Segment(busy, slowed / busy if busy else 1.0, None))
        return tuple(found)

    def _kernel(self, call: KernelCall) -> tuple[float, float]:
        if call not in self._known:
            self._known[call] = self.cluster.compute.price(call)
        return self._known[call]

    def _blocks(self, stage: int):
        return self.profile.blocks[slice(*self.layout.stages[stage])]

    def _forward(self, stage: int, i) -> list[Call]:
        return [call for block in self._blocks(stage) for call in block.forward]

    def _backward(self, stage: int, i: I.Backward) -> list[Call]:
        calls: list[Call] = []
        for bucket in reversed(i.buckets):
            for block in reversed(self.profile.blocks[slice(*self.layout.buckets[stage][bucket])]):
                calls += block.backward if i.after is None else block.accumulate
        return calls

    def _update(self, stage: int, i: I.MeasureParameters | I.OptimizerStep) -> list[Call]:
        calls: list[Call] = []
        for bucket in self.layout.buckets[stage]:
            blocks = self.profile.blocks[slice(*bucket)]
            measures = isinstance(i, I.MeasureParameters)
            update = [call for block in blocks for call in (block.measure if measures else block.update)]
            shares = self.plan.optimizer_shards
            # The step ends with the replica that makes most calls.
            calls += max((list(part_of(update, share, shares)) for share in range(shares)), key=len)
        return calls

    def _load(self, array: MetaArray) -> list[Call]:
        return [KernelCall("load", (array.shape,), array.dtype.name, 0, array.nbytes, array.nbytes)]

    # Communication

    def send(self, rank: int, i: I.SendActivation | I.SendGradient) -> tuple[float, float]:
        """(seconds, contention) of the sender."""
        network = self.cluster.network
        return network.send_seconds(rank, i.to, self._message_bytes(rank, i)), network.contention

    def receive(self, rank: int, i: I.RecvActivation | I.RecvGradient) -> tuple[float, float]:
        """(seconds, contention) of the receiver, after the sender is done."""
        network = self.cluster.network
        return network.receive_seconds(i.source, rank, self._message_bytes(rank, i)), network.contention

    def collective(self, rank: int, i) -> tuple[float, float]:
        """(seconds, contention) of each member's share of a collective instruction."""
        network, ranks = self.cluster.network, self.mesh(rank).ranks(*i.axes)
        return network.collective_seconds(i.collective, ranks, self.collective_bytes(rank, i)), network.contention

    def collective_bytes(self, rank: int, i) -> float:
        if isinstance(i, I.ReduceGradients | I.GatherParameters):
            stage = self.mesh(rank).coordinate("pipeline")
            blocks = self.profile.blocks[slice(*self.layout.buckets[stage][i.bucket])]
            return sum(block.parameter_bytes for block in blocks) * self.cluster.compute.scale
        if isinstance(i, I.ReduceParameterNorms):
            return NORM_BYTES * sum(block.squares for block in self._blocks(self.mesh(rank).coordinate("pipeline")))
        return TOTALS_BYTES if isinstance(i, I.ReduceLoss) else NORM_BYTES

    def _message_bytes(self, rank: int, i) -> float:
        stage = self.mesh(rank).coordinate("pipeline")
        # What crosses the border after a stage: the output of its last block, or the gradient with respect to it.
        border = stage if isinstance(i, (I.SendActivation, I.RecvGradient)) else stage - 1
        return self.profile.blocks[self.layout.stages[border][1] - 1].output.nbytes * self.cluster.compute.scale

    def mesh(self, rank: int) -> Mesh:
        if rank not in self._meshes:
            self._meshes[rank] = self.plan.mesh(rank)
        return self._meshes[rank]


def part_of(update: Sequence[KernelCall], share: int, shares: int) -> Iterator[KernelCall]:
    """The calls that update one of `shares` equal parts of the parameters which `update` updates whole."""
    total, start = sum(call.bytes_read + call.bytes_written for call in update), 0
    low, high = share * total / shares, (share + 1) * total / shares
    for call in update:
        moved = call.bytes_read + call.bytes_written
        part = min(start + moved, high) - max(start, low)
        start += moved
        if moved == 0:  # a view: made of every parameter
            yield call
        elif part > 0:
            numbers = {name: getattr(call, name) * part / moved for name in ("flops", "bytes_read", "bytes_written")}
            yield replace(call, **numbers)


CALLS = {
    I.LoadInput: lambda prices, stage, i: prices._load(prices.profile.input),
    I.LoadTarget: lambda prices, stage, i: prices._load(prices.profile.target),
    I.Forward: Prices._forward,
    I.Infer: Prices._forward,
    I.Loss: lambda prices, stage, i: prices.profile.loss,
    I.Score: lambda prices, stage, i: prices.profile.score,
    I.Backward: Prices._backward,
    I.MeasureParameters: Prices._update,
    I.OptimizerStep: Prices._update,
    I.EndEvaluation: lambda prices, stage, i: (),
}
