"""The front door: simulate(model, plan, cluster) -> Prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from minidl.display import Displayed, facts
from minidl.nn.module import Module
from minidl.parallel.block_profile import flops
from minidl.parallel.chain_profile import ChainProfile, sequence_length
from minidl.parallel.contracts import check_builder, check_loss
from minidl.parallel.memory import Memory, peak_memory
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.prepare import prepare
from minidl.parallel.program import Program, edited
from minidl.parallel.result import Throughput
from minidl.trace import Trace
from minidl.units import duration
from minidl.validation import check_positive
from simulator.engine import Engine
from simulator.hardware import Cluster
from simulator.prices import Prices
from simulator.report import rows, title
from simulator.simulation import simulation, trace_of
from simulator.stacks import Stack
from simulator.timeline import Timeline

if TYPE_CHECKING:
    from rich.console import RenderableType


ATTENDS_AS = {"plain": "cpu", "flash": "flash"}  # a stack's attention -> for what `prepare` is told that it is


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

    @property
    def step_seconds(self) -> float:
        return self._run.step_seconds

    @property
    def first_step_seconds(self) -> float:
        return self._run.first_step_seconds

    @cached_property
    def evaluation_seconds(self) -> float:
        run = simulation(self._evaluation, self._run.prices, steps=1)
        return run.step_seconds + run.prologue_seconds

    @cached_property
    def flops(self) -> float:
        profile, plan = self._profile, self.plan
        work = sum(block.flops for block in profile.blocks) + flops(profile.loss)
        return work * plan.micro_batches * plan.workers // plan.pipeline  # what ranks share, the profile has a part of

    @cached_property
    def memory(self) -> tuple[Memory, ...]:
        return tuple(peak_memory(self.program, rank) for rank in self.plan.mesh(0).ranks("pipeline"))

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
        return self.memory[self.fullest_stage].total

    @property
    def fits(self) -> bool:
        return self.memory_bytes <= self.cluster.memory_bytes

    @cached_property
    def trace(self) -> Trace:
        """The first two steps of the ranks that were run: all of them on shared cores, else one of each stage."""
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


def simulate(
    model: Callable[[Mesh], Module],
    plan: Plan,
    cluster: Cluster,
    batch_size: int,
    *,
    example: tuple | None = None,
    loss=None,
    optimizer: Callable | None = None,
    clip_norm: float | None = None,
    edit: Callable[[Program], Program] | None = None,
    stack: str | Path | Stack = "default",
    fitted: bool = True,
) -> Prediction:
    """Predict the first steps of training the chain that `model(mesh)` builds, under `plan`, on `cluster`.

    batch_size: samples of the global batch. example: (x, y) of one or more samples, for a model that carries no example
    of its own. loss: by default the model's own, or CrossEntropyLoss where it carries none. optimizer: a function of
    parameters, Adam by default. clip_norm: as for `train`; how large it is makes no difference here. edit: changes the
    program of training before it is checked and run. stack: the software that would run it, by its name, a path to a
    TOML file, or a Stack; "default" is what minidl does. fitted: multiply all times by the constant that was fitted to
    measured steps of this stack on this device, where there is one. Nothing is allocated and nothing is trained.

    Raises ValueError for arguments that do not fit together, ProgramError for an edited program that is wrong.
    """
    check_builder(model)
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a Plan, not a {type(plan).__name__}")
    if not isinstance(cluster, Cluster):
        raise TypeError(f"cluster must be a Cluster (calibrate(), Cluster.load(…)), not a {type(cluster).__name__}")
    if example is not None and not (isinstance(example, tuple | list) and len(example) == 2):
        raise TypeError("example must be a pair (x, y) of samples")
    if loss is not None:
        check_loss(loss)
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    plan.check_batch(batch_size)
    if plan.workers > cluster.devices and cluster.processors is None:
        raise ValueError(f"{plan} needs {plan.workers} devices, {cluster.name} has {cluster.devices}")
    cluster.peak_flops(plan.precision)  # refused where there is none
    chosen = stack if isinstance(stack, Stack) else Stack.load(stack)
    plan = chosen.planned(plan)
    device = ATTENDS_AS.get(chosen.attention, cluster.compute.device)
    prepared = prepare(
        model, plan, batch_size, example=example, loss=loss, optimizer=optimizer, clip=clip_norm is not None,
        flops_per_byte=cluster.compute.flops_per_byte(plan.precision), device=device,
    )  # fmt: skip
    program = edited(prepared.training, edit)
    pace = chosen.pace(cluster.device) if fitted else 1.0
    run = simulation(program, Prices(cluster, prepared.costs, chosen, pace))
    return Prediction(plan, cluster, chosen, program, batch_size, prepared.profile, prepared.evaluation, run)
