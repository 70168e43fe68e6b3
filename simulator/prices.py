"""What each instruction of a program takes on a cluster: its calls and its bytes, priced by device and network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from minidl.events import Details
from minidl.parallel import instructions as I
from minidl.parallel.block_profile import Call
from minidl.parallel.costs import Costs
from minidl.parallel.dependencies import Node
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.instructions import Instruction
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import PRECISIONS
from simulator.hardware import Cluster
from simulator.segments import Placed, Segment, placed
from simulator.stacks import Stack
from simulator.stretches import Stretches, stretches_of

Value = TypeVar("Value")
# The calls of a block, which are known by their identity; its stretches; and seconds of the collective after each.
Block = tuple[Sequence[Call], Stretches, tuple[float, ...]]


class Prices:
    """Prices of a program's instructions; ranks pay the same for what they compute of chunks that are alike.

    stack: rewrites the calls before they are priced. pace: by what every time is multiplied.
    """

    def __init__(self, cluster: Cluster, costs: Costs, stack: Stack, pace: float = 1.0):
        self.cluster, self.costs, self.plan, self.stack, self.pace = cluster, costs, costs.plan, stack, pace
        self._between_stages = pace * (1 - stack.pipeline_hidden)
        self._head = head = costs.profile.blocks[-1] if stack.products and costs.profile.blocks else None
        # The identities of its calls, which the profile keeps.
        whole = () if head is None else (head.forward, head.backward, head.accumulate, head.recompute, head.infer)
        self._of_head = set(map(id, whole))
        self._stack_of_head = stack.without_products
        self._meshes: dict[int, Mesh] = {}
        self._segments: dict[tuple, tuple[Segment, ...]] = {}  # by what an instruction does
        self._of_blocks: dict[tuple, tuple[Segment, ...]] = {}  # the same, by the identity of its blocks
        self._placed: dict[int, tuple[list[Placed], float]] = {}
        self._blocks: dict[int, Block] = {}  # by the identity of their calls, which they keep
        self._inside: dict[tuple, float] = {}
        self._moved: dict[tuple, float] = {}
        self._messages: dict[tuple, float] = {}
        self._collectives: dict[tuple, float] = {}

    def alike(self, nodes: Sequence[Node]) -> list[int]:
        """For each node the place of the first one that takes as long."""
        return self.costs.alike_nodes(nodes)

    def segments(self, rank: int, instruction: Instruction) -> tuple[Segment, ...]:
        """The stretches of a compute instruction, in order; at least one."""
        return self._once(self._segments, instruction, lambda: self._found_segments(rank, instruction))

    def _once(self, known: dict[tuple, Value], i: Instruction, find: Callable[[], Value]) -> Value:
        """What is found of an instruction, once for all that cost the same. known: by what they do."""
        work = i.work
        if work not in known:
            alike = self.costs.alike(i)
            if alike not in known:
                known[alike] = find()
            known[work] = known[alike]
        return known[work]

    def _found_segments(self, rank: int, i: Instruction) -> tuple[Segment, ...]:
        if self._head and isinstance(i, I.BackwardInput | I.BackwardWeights):
            halves = self._head.halves  # only these instructions ask for them: finding them runs the block
            self._of_head.update(map(id, (halves.inputs, halves.weights, halves.accumulate)))
        blocks = tuple(self._block(rank, calls) for calls in self.costs.calls_by_block(i))
        exposed = self._exposed_gathers(rank, i)
        key = (*map(id, blocks), exposed)  # the blocks are kept
        if key not in self._of_blocks:
            self._of_blocks[key] = self._joined(blocks, exposed)
        return self._of_blocks[key]

    def placed(self, rank: int, instruction: Instruction) -> tuple[list[Placed], float]:
        """What runs when in a compute instruction, with a lane for collectives, and how long its kernels take."""
        segments = self.segments(rank, instruction)
        if id(segments) not in self._placed:
            self._placed[id(segments)] = placed(segments)
        return self._placed[id(segments)]

    def _joined(self, blocks: Iterable[Block], exposed: float) -> tuple[Segment, ...]:
        """The segments of blocks, one after the other; of their gathers so many seconds are exposed."""
        found: list[Segment] = []
        busy = slowed = self.pace * self.cluster.compute.instruction_seconds
        goes_on = False
        for _, (stretches, launching), inside in blocks:
            launching *= self.pace
            for (seconds, slowed_seconds, call), inside_seconds in zip(stretches, inside, strict=True):
                seconds *= self.pace
                busy, slowed, launching = busy + seconds, slowed + slowed_seconds * self.pace, launching - seconds
                if call is None:
                    continue
                found.append(Segment(busy, slowed / busy if busy else 1.0, None, goes_on))
                found.append(Segment(inside_seconds, 1.0, call))
                busy = slowed = 0.0
                launching -= inside_seconds
                goes_on = call.phase == "start" and not self.copied_at_once(call)
            if launching > 0:  # kernels are faster than the host launches them
                busy, slowed = busy + launching, slowed + launching
        busy, slowed = busy + exposed, slowed + exposed
        found.append(Segment(busy, slowed / busy if busy else 1.0, None, goes_on))
        return tuple(found)

    def _block(self, rank: int, calls: Sequence[Call]) -> Block:
        """What a block takes."""
        if id(calls) not in self._blocks:
            loss = self.stack.loss if calls is self.costs.profile.loss else ""
            stack = self._stack_of_head if id(calls) in self._of_head else self.stack
            found = stretches_of(calls, self.cluster.compute, stack, loss or self.plan.precision)
            inside = tuple(self._inside_seconds(rank, call) if call else 0.0 for *_, call in found.in_order)
            self._blocks[id(calls)] = calls, found, inside
        return self._blocks[id(calls)]

    def copied_at_once(self, call: CollectiveCall) -> bool:
        """Whether a rank copies it then and there, and waits for nobody: a message that a layer sends on a core."""
        return call.name == "send" and self.cluster.processors is not None

    def _inside_seconds(self, rank: int, call: CollectiveCall) -> float:
        """Time of a collective or a message inside a layer; to wait for one takes none of its own.

        Of the groups of all ranks the slowest counts, so whichever rank is asked says it for all.
        """
        if call.phase == "wait":
            return 0.0
        key = call.name, call.axes, call.nbytes
        if key not in self._inside:
            nbytes, ranks = call.nbytes * self.plan.scale, self.mesh(rank).ranks(*call.axes)
            seconds = self.pace * self.cluster.network.layer_seconds(call.name, ranks, nbytes, self.plan.workers)
            self._inside[key] = seconds * (1 - self.stack.tensor_hidden)
        return self._inside[key]

    def _exposed_gathers(self, rank: int, instruction: Instruction) -> float:
        """Of gathering the parameters that an instruction computes with, the part that does not run beside kernels."""
        share, places = 1 - self.stack.gather_overlap, getattr(instruction, "gathered", ())
        if not (share and places):
            return 0.0
        gathers = (I.GatherParameters(*place, self.gathering_axes(*place), slot=slot) for place, slot in places)
        return share * sum(self.collective(rank, gather) for gather in gathers)

    def gathering_axes(self, chunk: int, bucket: int) -> tuple[str, ...]:
        return self.plan.spread(self.costs.layout.reduction(chunk, bucket).replicas)

    def send(self, source: int, to: int, i: I.SendActivation | I.SendGradient) -> float:
        """Seconds of the sender: of the ranks of its stage the first and the last, the slower of whom counts.

        If anyone of the stage sends beyond its node, one of these two does.
        """
        nbytes, last = self.moved_bytes(i), self.plan.workers // self.plan.pipeline - 1
        if self.cluster.processors is not None:
            last = 0
        key = source, to, nbytes
        if key not in self._messages:
            first = -(source % (last + 1))
            ends = {first, first + last}
            seconds = (self.cluster.network.send_seconds(source + away, to + away, nbytes) for away in ends)
            self._messages[key] = self._between_stages * max(seconds)
        return self._messages[key]

    def receive(self, source: int, to: int, i: I.RecvActivation | I.RecvGradient) -> float:
        """Seconds of the receiver, after the sender is done."""
        return self._between_stages * self.cluster.network.receive_seconds(source, to, self.moved_bytes(i))

    def collective(self, rank: int, i: Instruction) -> float:
        """Seconds of each member's share of a collective instruction."""
        network, nbytes = self.cluster.network, self.moved_bytes(i)
        if network.one_copy and i.one_copy:
            nbytes = 0.0
        key = None if i.is_whole else rank, i.collective, i.axes, nbytes
        if key not in self._collectives:
            ranks = self.mesh(rank).ranks(*i.axes)
            self._collectives[key] = network.collective_seconds(i.collective, ranks, nbytes, self.plan.workers)
        hidden = self.stack.data_hidden if isinstance(i, I.ReduceGradients | I.GatherParameters) else 0.0
        return self.pace * (1 - hidden) * self._collectives[key]

    def moved_bytes(self, i: Instruction) -> float:
        """What a message or a collective moves, in the precision of training."""
        return self._once(self._moved, i, lambda: self.costs.payload_bytes(i) * self._share_moved(i))

    def _share_moved(self, i: Instruction) -> float:
        """Of what the program moves, the part that the stack does, or how much more."""
        stack, plan = self.stack, self.plan
        if i.kind in ("send", "receive") and stack.split_sends and not plan.sequence_parallel:
            return 1 / plan.tensor
        if stack.gradients and isinstance(i, I.ReduceGradients | I.SumParts):
            return PRECISIONS[stack.gradients] / PRECISIONS[plan.precision]
        return 1.0

    def details(self, rank: int, i: Instruction, call: CollectiveCall | None = None) -> Details:
        """What a trace tells of an instruction, or of a collective inside it; bytes in the precision of training."""
        details = self.costs.details(rank, i)
        return details if call is None else details._replace(nbytes=round(call.nbytes * self.plan.scale))

    def mesh(self, rank: int) -> Mesh:
        if rank not in self._meshes:
            self._meshes[rank] = self.plan.mesh(rank)
        return self._meshes[rank]
