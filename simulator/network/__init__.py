"""What a message and a collective take: on links of a cluster, in shared memory of this machine, or where none is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from simulator.network.levels import Level, Levels
from simulator.network.link import Link
from simulator.network.no_network import NoNetwork
from simulator.network.shared_memory import SharedMemory


class Network(Protocol):
    """What prices communication.

    one_copy: ranks share memory, and what replicas have alike lies there once: to gather it moves nothing.
    """

    one_copy: ClassVar[bool]

    def send_seconds(self, source: int, to: int, nbytes: float) -> float:
        """Time for which a message occupies its sender."""
        ...

    def receive_seconds(self, source: int, to: int, nbytes: float) -> float:
        """Time for which it occupies its receiver after that."""
        ...

    def collective_seconds(self, name: str, ranks: Sequence[int], nbytes: float, workers: int) -> float:
        """Time of a collective of the whole tensor's `nbytes` among `ranks`, once all have arrived.

        workers: how many ranks there are in all: groups like this one, beside it, share its links. Of whole axes the
        time is that of the slowest such group, whichever is given.
        """
        ...

    def layer_seconds(self, name: str, ranks: Sequence[int], nbytes: float, workers: int) -> float:
        """The same inside a layer, which brings and gets arrays that are its own; also of "send" and "recv" there.

        These two are between neighbours, of whom the slowest count. Here groups along parts of axes, rows of a grid for
        one, are as alike as those of whole axes: the slowest counts.
        """
        ...


__all__ = ["Level", "Levels", "Link", "Network", "NoNetwork", "SharedMemory"]
