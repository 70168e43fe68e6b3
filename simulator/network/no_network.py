"""The network of a device that is alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NoNetwork:
    """What connects a single device with others: nothing. Its collectives with itself take no time."""

    one_copy = False

    def send_seconds(self, source: int, to: int, nbytes: float) -> float:
        raise ValueError(f"a single device sends no message from rank {source} to {to}")

    def receive_seconds(self, source: int, to: int, nbytes: float) -> float:
        raise ValueError(f"a single device receives no message from rank {source} on {to}")

    def collective_seconds(self, name: str, ranks: Sequence[int], nbytes: float, workers: int) -> float:
        return 0.0

    layer_seconds = collective_seconds

    def __str__(self) -> str:
        return "none"
