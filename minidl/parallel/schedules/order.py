"""Order: in which a stage runs the forwards and backwards of its chunks and micro-batches; what every schedule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

FORWARD, BACKWARD = "forward", "backward"
INPUT, WEIGHTS = "backward input", "backward weights"  # the halves of a backward


class Pass(NamedTuple):
    """A micro-batch goes through a chunk: forward, backward, or one half of a backward.

    chunk: which of those that the stage holds, in the order of the chain.
    """

    kind: str
    micro_batch: int
    chunk: int = 0


Order = Iterator[Pass]
OrderOfStage = Callable[[int, int, int, int], Order]  # of (stage, stages, micro_batches, chunks of a stage)


@dataclass(frozen=True)
class Schedule:
    """An order, and for which sizes it holds.

    one_chunk: a stage has one chunk. several_chunks: it has more than one. whole_rounds: the micro-batches are a
    multiple of the stages.
    """

    order: OrderOfStage
    one_chunk: bool = False
    several_chunks: bool = False
    whole_rounds: bool = False
