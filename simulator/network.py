"""Time of one message and of one collective: on the links of a cluster, or in the shared memory of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from minidl.parallel.collectives import COSTS
from minidl.units import counted, duration, scaled
from simulator.compute import Points, interpolate


class Network(Protocol):
    """What prices communication. contention: see `Compute.price`.

    one_copy: ranks share memory, and what replicas have alike lies there once: to gather it moves nothing.
    """

    contention: float
    one_copy: ClassVar[bool]

    def send_seconds(self, source: int, to: int, nbytes: float) -> float:
        """Time for which a message occupies its sender."""
        ...

    def receive_seconds(self, source: int, to: int, nbytes: float) -> float:
        """Time for which it occupies its receiver after that."""
        ...

    def collective_seconds(self, name: str, ranks: Sequence[int], nbytes: float) -> float:
        """Time of a collective of the whole tensor's `nbytes` among `ranks`, once all have arrived."""
        ...

    def layer_seconds(self, name: str, ranks: Sequence[int], nbytes: float) -> float:
        """The same inside a layer, which brings and gets arrays that are its own; also of "send" and "recv" there.

        These two are between neighbours, of whom the slowest count.
        """
        ...


@dataclass(frozen=True)
class Link:
    """latency: alpha, in seconds. bandwidth: 1/beta, in bytes per second and direction."""

    latency: float
    bandwidth: float

    def seconds(self, messages: int, nbytes: float) -> float:
        return messages * self.latency + nbytes / self.bandwidth

    def __str__(self) -> str:
        return f"{scaled(self.bandwidth, 'B/s')}, {duration(self.latency)}"


@dataclass(frozen=True)
class Links:
    """Nodes of `node_devices` devices joined by `node` links; `network` links join the nodes, one for each device."""

    node_devices: int
    node: Link
    network: Link
    contention: float = 1.0
    one_copy = False

    def send_seconds(self, source: int, to: int, nbytes: float) -> float:
        same = source // self.node_devices == to // self.node_devices
        return (self.node if same else self.network).seconds(1, nbytes)

    def receive_seconds(self, source: int, to: int, nbytes: float) -> float:
        return 0.0  # the two are busy at the same time

    def collective_seconds(self, name: str, ranks: Sequence[int], nbytes: float) -> float:
        """A ring within each node, then rings between the nodes, each of the node's devices carrying its share.

        The two levels are those of NCCL's hierarchical rings: inside a node all bytes, between nodes 1/local of them.
        Where nodes hold unequally many of the ranks, the largest is the slowest inside, the smallest between them.
        """
        nodes: dict[int, int] = {}
        for rank in ranks:
            nodes[rank // self.node_devices] = nodes.get(rank // self.node_devices, 0) + 1
        local, fewest = max(nodes.values()), min(nodes.values())
        cost = COSTS[name]
        seconds = 0.0
        if local > 1:
            inside = cost(local, nbytes)
            seconds += self.node.seconds(inside.steps, inside.nbytes)
        if len(nodes) > 1:
            between = cost(len(nodes), nbytes / fewest)
            seconds += self.network.seconds(between.steps, between.nbytes)
        return seconds

    def layer_seconds(self, name: str, ranks: Sequence[int], nbytes: float) -> float:
        if name not in ("send", "recv"):
            return self.collective_seconds(name, ranks, nbytes)
        seconds = self.send_seconds if name == "send" else self.receive_seconds
        return max(seconds(source, to, nbytes) for source, to in zip(ranks, (*ranks[1:], ranks[0]), strict=True))

    def __str__(self) -> str:
        return f"{self.node} in a node of {counted(self.node_devices, 'device')}; {self.network} between nodes"


@dataclass(frozen=True)
class NoNetwork:
    """What connects a single device with others: nothing. Its collectives with itself take no time."""

    contention: float = 1.0
    one_copy = False

    def send_seconds(self, source: int, to: int, nbytes: float) -> float:
        raise ValueError(f"a single device sends no message from rank {source} to {to}")

    def receive_seconds(self, source: int, to: int, nbytes: float) -> float:
        raise ValueError(f"a single device receives no message from rank {source} on {to}")

    def collective_seconds(self, name: str, ranks: Sequence[int], nbytes: float) -> float:
        return 0.0

    layer_seconds = collective_seconds

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True)
class SharedMemory:
    """Collectives and messages as they were timed between two workers of this machine.

    collectives: for each name, (bytes, seconds). layers: the same of arrays that are not shared, as those of layers are
    not: they are copied, and results are new; with the Python after it. send, receive: (bytes, seconds) of each side's
    copy. Every rank of a group moves about twice the tensor's bytes, however many ranks there are, so the times serve
    for any size of group.
    """

    collectives: Mapping[str, Points]
    layers: Mapping[str, Points]
    send: Points
    receive: Points
    contention: float = 1.0  # they were timed with the other core busy
    one_copy = True

    def send_seconds(self, source: int, to: int, nbytes: float) -> float:
        return interpolate(self.send, nbytes)

    def receive_seconds(self, source: int, to: int, nbytes: float) -> float:
        return interpolate(self.receive, nbytes)

    def collective_seconds(self, name: str, ranks: Sequence[int], nbytes: float) -> float:
        if len(ranks) == 1:
            return interpolate(self.collectives["alone"], nbytes)
        return interpolate(self.collectives.get(name) or self.collectives["all_reduce"], nbytes)

    def layer_seconds(self, name: str, ranks: Sequence[int], nbytes: float) -> float:
        return interpolate(self.layers.get(name) or self.layers["all_reduce"], nbytes)

    def __str__(self) -> str:
        nbytes, seconds = self.send[-1]
        return f"shared memory, {scaled(nbytes / seconds, 'B/s')} for a message of {scaled(nbytes, 'B')}"
