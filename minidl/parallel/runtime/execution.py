"""What a worker is at: the list that it runs, how far it has come in it, and the samples of the step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minidl.parallel.handle import Steps
from minidl.parallel.instructions import Instruction
from minidl.parallel.machine import Compiled, Lane, Lanes
from minidl.trace import COLLECTIVES, MESSAGES


@dataclass(frozen=True)
class Step:
    """What a step works on: the samples of this replica's micro-batches, and the step's number, from 0.

    labels: those that came with inputs, where one rank holds both ends of the chain.
    """

    dataset: object
    samples: list[np.ndarray]
    number: int
    labels: dict[int, np.ndarray] = field(default_factory=dict)


class Execution:
    """A list under way: how far it has come, and what is begun on each lane that communicates.

    first_step: the number of the step that it runs first.
    """

    def __init__(self, compiled: Compiled, first_step: int = 0):
        self.lanes, self.first_step = Lanes(compiled, steps=0), first_step
        others = [self.lanes[name] for name in (MESSAGES, COLLECTIVES) if name in compiled]  # messages are waited for
        self.begun: dict[Lane, tuple[Instruction, Steps] | None] = dict.fromkeys(others)
