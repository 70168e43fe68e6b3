"""Prediction: what a plan would do on a cluster, read from a run of its program against the clocks of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from minidl.display import Displayed, facts
from minidl.one_at_a_time import one_at_a_time
from minidl.parallel.block_profile import flops
from minidl.parallel.chain_profile import ChainProfile, sequence_length
from minidl.parallel.memory import Memory
from minidl.parallel.plan import Plan
from minidl.parallel.prepare import Prepared
from minidl.parallel.program import Program
from minidl.parallel.result import Throughput
from minidl.trace import Trace
from minidl.units import duration
from minidl.validation import check_positive
from simulator.engine import Engine
from simulator.hardware import Cluster
from simulator.memory import device_bytes, stage_memories
from simulator.placement import Placement, placement
from simulator.report import rows, title
from simulator.simulation import simulation, trace_of
from simulator.stacks import Stack
from simulator.timeline import Timeline
from simulator.ways_to_fit import Way, ways_to_fit

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, repr=False)
class Prediction(Throughput, Displayed):
    """What a plan would do on a cluster. All of it is predicted, nothing measured.

    step_seconds: of one step that follows others, as all but the first do. first_step_seconds: of the first one, up to
    its update: a gather after that is part of the next step, or of the end.
    evaluation_seconds: of evaluating a batch, with the broadcast of statistics before it. throughput: samples per
    second. mfu: FLOPs of forward and backward over what the devices could do in the step. flops: of forward and
    backward of the global batch. memory: of a rank of each stage, when it holds most. memory_bytes: of the fullest
    device. fits: whether that is within a device's memory. assumptions: what was not the plan's to say. sequence:
    tokens of a sample, None where samples are no sequences of tokens.
    """

    plan: Plan
    cluster: Cluster
    stack: Stack
    program: Program
    batch_size: int
    _profile: ChainProfile
    _evaluation: Program
    _run: Timeline | Engine
    _prepare: Callable[[Plan], Prepared]

    @property
    def step_seconds(self) -> float:
        return self._run.step_seconds

    @property
    def first_step_seconds(self) -> float:
        return self._run.first_step_seconds

    @cached_property
    @one_at_a_time
    def evaluation_seconds(self) -> float:
        run = simulation(self._evaluation, self._run.prices, steps=1)
        return run.step_seconds + run.prologue_seconds

    @cached_property
    def flops(self) -> float:
        profile, plan = self._profile, self.plan
        work = sum(block.flops for block in profile.blocks) + flops(profile.loss)
        return work * plan.micro_batches * plan.workers // plan.pipeline  # what ranks share, the profile has a part of

    @cached_property
    def placement(self) -> Placement:
        """Which axis of the plan spans which level of the cluster."""
        return placement(self.plan, self.cluster)

    @property
    def pace(self) -> float:
        """The constant by which all times are multiplied: that of the stack on the device, 1 where there is none."""
        return self._run.prices.pace

    @cached_property
    @one_at_a_time
    def memory(self) -> tuple[Memory, ...]:
        return stage_memories(self.program, self.stack)

    @property
    def optimizer(self) -> str:
        return self._profile.optimizer

    @property
    def loss(self) -> str:
        return self._profile.loss_name

    @property
    def sequence(self) -> int | None:
        return sequence_length(self._profile.input)

    def __repr__(self) -> str:
        where, fits = f"{self.plan} on {self.cluster.name}", "fits" if self.fits else "does not fit"
        return f"<Prediction of {where}: {duration(self.step_seconds)} a step, {self.mfu:.1%} MFU, {fits}>"

    def __rich__(self) -> RenderableType:
        return facts(title(self), rows(self))

    @property
    def assumptions(self) -> dict[str, object]:
        """What the numbers hold for, beside the cluster: precision, stack, sequence, optimizer and loss."""
        return {
            "precision": self.plan.precision,
            "stack": self.stack.key,
            "sequence": self.sequence,
            "optimizer": self.optimizer,
            "loss": self.loss,
        }

    def seconds_for(self, tokens: float) -> float:
        """How long it takes to train on so many tokens. ValueError where samples are no sequences of tokens."""
        check_positive("tokens", tokens)
        if self.tokens_per_second is None:
            raise ValueError("the samples of this model are no sequences of tokens: it has no tokens to count")
        return tokens / self.tokens_per_second

    @property
    def mfu(self) -> float:
        return self.flops / (self.step_seconds * self.plan.workers * self.cluster.peak_flops(self.plan.precision))

    @property
    def fullest_stage(self) -> int:
        return max(range(len(self.memory)), key=lambda stage: self.memory[stage].total)

    @property
    def memory_bytes(self) -> float:
        return device_bytes(self.memory[self.fullest_stage], self.stack)

    @property
    def fits(self) -> bool:
        return self.memory_bytes <= self.cluster.memory_bytes

    @cached_property
    @one_at_a_time
    def ways_to_fit(self) -> tuple[Way, ...]:
        """Changes of the plan with which it fits, on as many devices, each by itself or, if none is enough, together.

        Empty where it fits, and where none of them is enough.
        """
        return () if self.fits else ways_to_fit(self.plan, self.stack, self.cluster.memory_bytes, self._prepare)

    @cached_property
    def trace(self) -> Trace:
        """The first two steps of one rank of each stage; of all ranks on shared cores, and of an edited program."""
        return trace_of(self.program, self._run)

    @cached_property
    def breakdown(self) -> dict[str, float]:
        """Seconds of the step by what a rank does: mean over the ranks; they sum to step_seconds."""
        compute, exposed = self._run.busy_and_exposed()
        return {
            "compute": compute,
            "exposed communication": exposed,
            "bubble": self.step_seconds - compute - exposed,
        }
