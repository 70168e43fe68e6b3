"""Messages and collectives in the shared memory of this machine, as they were timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minidl.units import scaled
from simulator.compute.interpolation import Points, interpolate


@dataclass(frozen=True)
class SharedMemory:
    """Collectives and messages as they were timed between two workers of this machine.

    collectives: for each name, (bytes, seconds). layers: the same of arrays that are not shared, as those of layers are
    not: they are copied, and results are new; with the Python after it. send, receive: (bytes, seconds) of each side's
    copy. Every rank of a group moves about twice the tensor's bytes, however many ranks there are, so the times serve
    for any size of group. The other core was busy meanwhile: they are no slower in a simulation where cores are.
    """

    collectives: Mapping[str, Points]
    layers: Mapping[str, Points]
    send: Points
    receive: Points
    one_copy = True

    def send_seconds(self, source: int, to: int, nbytes: float) -> float:
        return interpolate(self.send, nbytes)

    def receive_seconds(self, source: int, to: int, nbytes: float) -> float:
        return interpolate(self.receive, nbytes)

    def collective_seconds(self, name: str, ranks: Sequence[int], nbytes: float, workers: int) -> float:
        if len(ranks) == 1:
            return interpolate(self.collectives["alone"], nbytes)
        return interpolate(self.collectives.get(name) or self.collectives["all_reduce"], nbytes)

    def layer_seconds(self, name: str, ranks: Sequence[int], nbytes: float, workers: int) -> float:
        return interpolate(self.layers.get(name) or self.layers["all_reduce"], nbytes)

    def __str__(self) -> str:
        nbytes, seconds = self.send[-1]
        return f"shared memory, {scaled(nbytes / seconds, 'B/s')} for a message of {scaled(nbytes, 'B')}"
