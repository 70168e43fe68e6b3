"""Messages and collectives on links: each link a latency and a bandwidth, fast ones in a node, slow ones between nodes.

The alpha-beta model (Hockney 1994): a message of n bytes takes alpha + n beta. A collective takes as many messages and
bytes in a row as its algorithm says, see `minidl.parallel.collectives.COSTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minidl.parallel.collectives import COSTS
from minidl.units import counted, duration, scaled


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
