"""What comes out of training: the record of each step, evaluations, and the Run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from minidl.display import Displayed, facts
from minidl.parallel.memory import Memory
from minidl.parallel.plan import Plan
from minidl.parallel.program import Program
from minidl.trace import Trace
from minidl.units import counted, duration, rate

if TYPE_CHECKING:
    from rich.console import RenderableType


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


class Throughput:
    """What follows from the time of a step, measured or predicted.

    batch_size: samples of a global batch. sequence: tokens of a sample, None where samples are no sequences of tokens.
    """

    batch_size: int
    sequence: int | None

    @property
    def throughput(self) -> float:
        return self.batch_size / self.step_seconds

    @property
    def tokens_per_second(self) -> float | None:
        """None where samples are no sequences of tokens."""
        return self.throughput * self.sequence if self.sequence else None


@dataclass(kw_only=True)
class Run(Throughput, Displayed):
    """The result of `train`. losses and step_times have one entry a step; step_seconds is their median, nan of none.

    A step's time ends with its update: a gather that goes on beside the next step is part of the next one's, as in
    `trace.step_seconds`.

    batch_size: samples of a global batch. sequence: tokens of a sample, None where samples are no sequences of tokens.
    throughput: samples per second, of a step of a whole batch. first_step: that of the first entry, 0 unless the run
    was resumed. memory: what the fullest worker held in arrays when it held most, looked at in the first two steps;
    messages from when they come, which may be before they are needed; None if no worker could say. memory_bytes: all of
    it. saved_step: how many steps had been done when the checkpoint was written last, None if none was. save_error: why
    the last one could not be written, None if it was.
    """

    plan: Plan
    program: Program
    batch_size: int
    losses: list[float]
    step_times: list[float]
    trace: Trace
    evaluations: list[Evaluation]
    sequence: int | None = None
    first_step: int = 0
    memory: Memory | None = None
    saved_step: int | None = None
    save_error: Exception | None = None
    _state: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

    @property
    def step_seconds(self) -> float:
        return statistics.median(self.step_times) if self.step_times else math.nan

    @property
    def memory_bytes(self) -> int:
        return self.memory.total if self.memory else 0

    def state_dict(self) -> dict[str, np.ndarray]:
        """name -> array: the whole parameters, whatever the plan, and the buffers of the first replica."""
        return dict(self._state)

    def __repr__(self) -> str:
        steps = f"{counted(len(self.losses), 'step')}"
        if self.losses:
            steps += f", loss {_course(self.losses)}, {duration(self.step_seconds)} a step"
        return f"<Run of {self.plan}: {steps}>"

    def __rich__(self) -> RenderableType:
        steps = f"{len(self.losses):,} of {counted(self.batch_size, 'sample')}"
        rows = [("workers", f"{self.plan.workers:,}")]
        rows += [("steps", steps + (f", after the first {self.first_step:,}" if self.first_step else ""))]
        if self.losses:
            rows += [("loss", _course(self.losses))]
        if self.evaluations:
            steps = " to ".join(f"{e.step:,}" for e in _ends(self.evaluations))
            rows += [("evaluated", f"after {'step' if len(self.evaluations) == 1 else 'steps'} {steps}")]
            rows += [("test loss", _course([e.loss for e in self.evaluations]))]
            if any(e.accuracy for e in self.evaluations):  # the targets are labels
                rows += [("test accuracy", _course([e.accuracy for e in self.evaluations], ".1%"))]
        if self.step_times:
            rows += [("step time, median", duration(self.step_seconds))]
            tokens = f", {rate(self.tokens_per_second, 'tokens')}" if self.sequence else ""
            rows += [("throughput", rate(self.throughput, "samples") + tokens)]
        if self.trace.events:
            rows += self.trace.waiting()
        if self.saved_step is not None:
            rows += [("checkpoint", f"of step {self.saved_step:,}")]
        if self.save_error is not None:
            rows += [("not saved", str(self.save_error))]
        return facts(f"Run of {self.plan}", rows)


def _course(values: Sequence[float], form: str = ".4g") -> str:
    """The first of the values and the last."""
    return " → ".join(f"{value:{form}}" for value in _ends(values))


def _ends(values: Sequence) -> Sequence:
    return values if len(values) == 1 else (values[0], values[-1])
