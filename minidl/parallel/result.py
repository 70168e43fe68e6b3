"""What comes out of training: the record of each step, evaluations, and the Run."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

import numpy as np

from minidl.parallel.plan import Plan
from minidl.parallel.schedules import Program
from minidl.trace import Trace


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracy (share of right answers; 0 where the targets are no labels) after `step` steps."""

    step: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class StepRecord:
    """What a callback is told after step `step` (from 0): its mean loss, and its seconds."""

    step: int
    loss: float
    seconds: float
    evaluation: Evaluation | None = None


@dataclass(kw_only=True)
class Run:
    """The result of `train`. losses and step_times have one entry a step; step_seconds is their median, nan of none.

    first_step: that of the first entry, 0 unless the run was resumed. saved_step: how many steps had been done when the
    checkpoint was written last, None if none was. save_error: why the last one could not be written, None if it was.
    """

    plan: Plan
    program: Program
    losses: list[float]
    step_times: list[float]
    trace: Trace
    evaluations: list[Evaluation]
    first_step: int = 0
    saved_step: int | None = None
    save_error: Exception | None = None
    _state: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

    @property
    def step_seconds(self) -> float:
        return statistics.median(self.step_times) if self.step_times else math.nan

    def state_dict(self) -> dict[str, np.ndarray]:
        """name -> array: the whole parameters, whatever the plan, and the buffers of the first replica."""
        return dict(self._state)
