"""Plan -> Program: the instructions of every rank, made around the order that the plan's schedule gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minidl.display import Displayed
from minidl.parallel.instructions import (
    Backward,
    EndEvaluation,
    Forward,
    GatherParameters,
    Infer,
    Instruction,
    LoadInput,
    LoadTarget,
    Loss,
    MeasureParameters,
    OptimizerStep,
    RecvActivation,
    RecvGradient,
    ReduceGradients,
    ReduceLoss,
    ReduceNorm,
    ReduceParameterNorms,
    ReduceScatterGradients,
    Score,
    SendActivation,
    SendGradient,
)
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.schedules import SCHEDULES
from minidl.units import counted

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class RankProgram(Displayed):
    """The instructions of one rank: once before the first step, in every step, once after the last."""

    prologue: tuple[Instruction, ...]
    step: tuple[Instruction, ...]
    epilogue: tuple[Instruction, ...]

    def __repr__(self) -> str:
        return f"<RankProgram of {counted(len(self.step), 'instruction')} a step>"

    def __rich__(self) -> RenderableType:
        from minidl.parallel.listing import rank_listing  # with rich, which workers do not need

        return rank_listing(self)


class Program(Displayed):
    """The instructions of every rank. Lists are made when they are asked for: a rank's list depends on its place alone.

    plan, layout: what the program was made from. edited: ranks whose list was replaced (see `without`).
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        make: Callable[[Mesh], tuple[Instruction, ...]],
        edited: dict[int, RankProgram] | None = None,
    ):
        self.plan, self.layout, self._make = plan, layout, make
        self.edited = edited or {}
        self._ranks: dict[int, RankProgram] = dict(self.edited)

    @property
    def world_size(self) -> int:
        return self.plan.workers

    def __getitem__(self, rank: int) -> RankProgram:
        if rank not in self._ranks:
            self._ranks[rank] = RankProgram((), self._make(self.plan.mesh(rank)), ())
        return self._ranks[rank]

    def without(self, rank: int, index: int) -> Program:
        """The same program, but that `rank` lacks instruction `index` of its step."""
        own = self[rank]
        step = own.step[:index] + own.step[index + 1 :]
        edited = self.edited | {rank: RankProgram(own.prologue, step, own.epilogue)}
        return Program(self.plan, self.layout, self._make, edited)

    def representatives(self) -> tuple[int, ...]:
        """One rank of each stage, whose other ranks have the same list but for their peers. All, if any is edited."""
        if self.edited:
            return tuple(range(self.world_size))
        return self.plan.mesh(0).ranks("pipeline")

    def __repr__(self) -> str:
        edited = f", {len(self.edited):,} of them edited" if self.edited else ""
        return f"<Program of {self.plan}: {counted(self.world_size, 'list')} of instructions{edited}>"

    def __rich__(self) -> RenderableType:
        from minidl.parallel.listing import listing

        return listing(self)


def training_program(plan: Plan, layout: Layout, clip: bool = False, norms: bool = False) -> Program:
    """The program of one training step under `plan`.

    clip: gradients are to be clipped by their norm. norms: the optimizer's update takes norms of whole parameters.
    """
    return Program(plan, layout, lambda mesh: tuple(_training_step(plan, layout, mesh, clip, norms)))


def evaluation_program(plan: Plan, layout: Layout) -> Program:
    """The program that evaluates one batch: forwards alone."""
    return Program(plan, layout, lambda mesh: tuple(_evaluation(plan, mesh)))


def _training_step(plan: Plan, layout: Layout, mesh: Mesh, clip: bool, norms: bool) -> Iterator[Instruction]:
    stage, stages, m_last = mesh.coordinate("pipeline"), plan.pipeline, plan.micro_batches - 1
    last_bucket = len(layout.buckets[stage]) - 1
    reduces = plan.data > 1
    sharded = plan.optimizer_shards > 1
    reduce = ReduceScatterGradients if sharded else ReduceGradients
    accumulated = None  # the micro-batch up to which gradients are accumulated

    order = list(SCHEDULES[plan.schedule](stage, stages, plan.micro_batches))
    final = [m for kind, m in order if kind == "backward"][-1]
    for kind, m in order:
        if kind == "forward":
            yield from _forward(mesh, stage, stages, m, Forward(stage, m), Loss(stage, m, last_bucket))
            continue
        if stage < stages - 1:
            yield RecvGradient(stage, m, last_bucket, mesh.rank_at(pipeline=stage + 1))
        if m == final and reduces and stage == 0:
            # Bucket by bucket, so that each is reduced while the blocks before it still go backward.
            for bucket in range(last_bucket, -1, -1):
                yield Backward(stage, m, bucket, bucket, accumulated)
                yield reduce(stage, bucket, m)
        else:
            yield Backward(stage, m, 0, last_bucket, accumulated)
            if stage > 0:
                yield SendGradient(stage, m, mesh.rank_at(pipeline=stage - 1))
            if m == final and reduces:
                # The earlier stage waits for this gradient, so it goes first; the reductions fill the pipeline's drain.
                for bucket in range(last_bucket, -1, -1):
                    yield reduce(stage, bucket, m)
        accumulated = m

    yield ReduceLoss(tuple(range(m_last + 1)) if stage == stages - 1 else ())
    buckets = range(last_bucket + 1)
    reduced = "share" if sharded else "reduced"
    gradients = tuple((reduced, stage, b) if reduces else ("weights", stage, b, final) for b in buckets)
    if clip:
        yield ReduceNorm(gradients)
    if norms:
        yield MeasureParameters(gradients, clip)
        yield ReduceParameterNorms(sharded)
    yield OptimizerStep(gradients, clip, norms)
    if sharded:
        for bucket in buckets:
            yield GatherParameters(stage, bucket)


def _evaluation(plan: Plan, mesh: Mesh) -> Iterator[Instruction]:
    stage, stages = mesh.coordinate("pipeline"), plan.pipeline
    for m in range(plan.micro_batches):
        yield from _forward(mesh, stage, stages, m, Infer(stage, m), Score(stage, m))
    yield ReduceLoss(tuple(range(plan.micro_batches)) if stage == stages - 1 else ())
    yield EndEvaluation()


def _forward(mesh, stage, stages, m, forward: Instruction, loss: Instruction) -> Iterator[Instruction]:
    """`forward` between its input and what follows it: the next stage, or on the last stage `loss`."""
    if stage == 0:
        yield LoadInput(m)
    else:
        yield RecvActivation(stage, m, mesh.rank_at(pipeline=stage - 1))
    yield forward
    if stage < stages - 1:
        yield SendActivation(stage, m, mesh.rank_at(pipeline=stage + 1))
    else:
        yield LoadTarget(m)
        yield loss
