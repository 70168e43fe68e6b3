"""The steps of a training on one rank: which samples, which learning rate, what is reported and when."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from minidl import io
from minidl.creation import device as default_device
from minidl.data.batches import batch_indices, batches, batches_per_epoch, epoch_order, split_batch
from minidl.data.datasets import set_epoch
from minidl.optim.lr_scheduler import LRScheduler
from minidl.parallel import rank_state
from minidl.parallel.blocks import recompute_attention
from minidl.parallel.chain_profile import chain_of
from minidl.parallel.contracts import make_optimizer
from minidl.parallel.group import ProcessGroup
from minidl.parallel.losses import loss_of_output
from minidl.parallel.memory import Memory
from minidl.parallel.mesh import AXES, SAMPLES, Axis, Mesh
from minidl.parallel.program import Program
from minidl.parallel.rank_state import RankState
from minidl.parallel.request import Request
from minidl.parallel.result import Evaluation, StepRecord
from minidl.parallel.runtime.device import device_of_rank
from minidl.parallel.runtime.execution import Execution, Step
from minidl.parallel.runtime.high_water import HighWater
from minidl.parallel.runtime.stage import Stage
from minidl.parallel.runtime.worker import Worker
from minidl.parallel.sequence import positions
from minidl.trace import Event

REPORT_SECONDS = 0.05  # between two reports of a worker to the launcher


@dataclass(frozen=True)
class Job:
    """What every worker needs to know.

    layer_axes: over which the model's layers communicate. positions: how many a rank has of each sequence where several
    share them, 0 where they do not. first_step: how many steps are done already, in the checkpoint that the request
    resumes.
    """

    request: Request
    training: Program
    evaluation: Program
    layer_axes: list[tuple[Axis, ...]]
    positions: int
    first_step: int


class Result(NamedTuple):
    """What a worker returns: its events, as Worker has them; its state at the end, and what it held at the most.

    records: of all steps, from the worker that reports them; none from the others.
    """

    events: list[Event]
    state: RankState
    memory: Memory
    records: list[StepRecord]


def run_rank(group, job: Job) -> Result:
    """What one worker does; meanwhile it reports records and its state."""
    request, plan, program = job.request, job.request.plan, job.training
    worker = _make_worker(group, job)
    stage, optimizer, mesh = worker.stage, worker.optimizer, worker.mesh
    worker.record_model(job.first_step)
    execution = Execution(program.compiled(mesh.rank), job.first_step)
    memory = worker.memory = HighWater(stage, optimizer)
    scheduler = None
    if optimizer and request.lr_schedule:
        scheduler = LRScheduler(optimizer, lambda step: request.lr_schedule(job.first_step + step))
    part, reports = mesh.index(*SAMPLES), mesh.rank == mesh.world_size - 1
    per_epoch = batches_per_epoch(len(request.dataset), request.batch_size, request.drop_last)
    events: deque[list[tuple]] = deque(maxlen=request.trace_steps)
    every_record, records, reported = [], [], time.perf_counter()

    def held(step: int) -> RankState:
        state_of = optimizer if request.save is not None else None
        return rank_state.take(step, stage, state_of, mesh)

    done, epoch, order = job.first_step, -1, None
    worker.run_once(program.compiled(mesh.rank, "prologue"), Step(request.dataset, [], done))
    try:
        while done < request.steps and group.begins(done):
            step, done = done, done + 1
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = epoch_order(len(request.dataset), request.seed, epoch)
                set_epoch(request.dataset, epoch)
            batch = batch_indices(order, step % per_epoch, request.batch_size)
            samples = split_batch(batch, plan.sample_parts, plan.micro_batches)[part]
            if scheduler and step > job.first_step:
                scheduler.step()
            start = time.perf_counter()
            worker.device.anchor()
            totals = worker.run(execution, Step(request.dataset, samples, step))
            seconds = time.perf_counter() - start
            last = done == request.steps
            evaluates = request.evaluate is not None and (last or done % request.evaluate_every == 0)
            saves = bool(request.save_every) and done % request.save_every == 0 and not last
            if evaluates or saves:
                worker.drain(execution)
            events.append(worker.events)
            worker.events = []
            if done > job.first_step + 1:  # by now the optimizer has its state, and every step holds the same
                worker.memory = None

            evaluated = _evaluate(worker, job, part, done) if evaluates else None
            if reports:
                records.append(StepRecord(step, _mean(totals.loss, totals.weight), seconds, evaluated))
                every_record.append(records[-1])
                if saves or time.perf_counter() - reported > REPORT_SECONDS:
                    group.report(records)
                    records, reported = [], time.perf_counter()
            if saves:
                group.report(held(done))
        worker.drain(execution)
        worker.run_once(program.compiled(mesh.rank, "epilogue"), Step(request.dataset, [], done))
    finally:
        with contextlib.suppress(OSError):  # the launcher listens no longer: another rank failed first
            if records:
                group.report(records)
    first, seconds = done - len(events), worker.device.seconds
    kept = (Event._make(event) for event in chain(*events, worker.events))
    kept = [e._replace(start=seconds(e.start), end=seconds(e.end)) for e in kept if e.step >= first]
    return Result(kept, held(done), memory.most, every_record)


def _make_worker(group, job: Job) -> Worker:
    """The worker of this rank, with its part of the model, as new or as the checkpoint has it."""
    request, plan = job.request, job.request.plan
    # The order between the collectives of instructions and those of layers is not the same on all ranks, so they have
    # groups of their own; all ranks make them in the same order.
    mesh, layers = (plan.mesh(group.rank, connect(group)) for _ in range(2))
    for axes in sorted({*job.training.axes, *job.evaluation.axes}, key=str):
        mesh.group(*axes)
    for axes in job.layer_axes:
        layers.group(*axes)
    with default_device("meta"):
        model = request.build(layers)
    if plan.recompute == "selective":
        recompute_attention(model, True)
    device = device_of_rank(request.device)
    stage = Stage(model, job.training.layout, mesh, request.seed, request.dtype, plan, device.name)
    stage.train(True)
    optimizer = make_optimizer(request.optimizer, stage.parameters) if stage.parameters else None
    if request.resume is not None:
        rank_state.restore(io.load(request.resume), stage, optimizer, mesh)
    loss = loss_of_output(request.loss, chain_of(model))
    sharing = mesh.coordinate("context"), mesh.size("context")
    own = positions(job.positions * plan.context, *sharing) if job.positions else None
    worker = Worker(stage, mesh, loss, optimizer, request.seed, request.clip_norm, device, own)
    for axes in job.layer_axes:
        layers.group(*axes).on_collective = worker.inside_layer
    return worker


def _evaluate(worker: Worker, job: Job, part: int, step: int) -> Evaluation:
    """Evaluate the model that `Run.state_dict` would give."""
    request, rank = job.request, worker.mesh.rank
    memory, worker.memory = worker.memory, None
    worker.stage.train(False)
    worker.run_once(job.evaluation.compiled(rank, "prologue"), Step(request.evaluate, [], step))
    execution = Execution(job.evaluation.compiled(rank))
    loss = weight = correct = answers = 0.0
    for batch in batches(np.arange(len(request.evaluate)), request.batch_size):
        samples = split_batch(batch, request.plan.sample_parts, request.plan.micro_batches)[part]
        totals = worker.run(execution, Step(request.evaluate, samples, step))
        loss, weight = loss + totals.loss, weight + totals.weight
        correct, answers = correct + totals.correct, answers + totals.answers
    worker.drain(execution)
    worker.run_once(job.evaluation.compiled(rank, "epilogue"), Step(request.evaluate, [], step))
    worker.stage.train(True)
    worker.events, worker.memory = [], memory
    return Evaluation(step, _mean(loss, weight), correct / answers if answers else 0.0)


def _mean(total: float, weight: float) -> float:
    return total / weight if weight else math.nan


def connect(world: ProcessGroup) -> Callable:
    """Makes the groups of a mesh by splitting `world`: those of the same axes do not overlap."""

    def connect(mesh: Mesh, axes: tuple[Axis, ...]):
        if axes == AXES:
            return world
        ranks = mesh.ranks(*axes)
        group = world.split(color=ranks[0] if mesh.rank in ranks else world.size)  # the others stay among themselves
        group.axes, group.name = axes, " × ".join(map(str, axes))
        return group

    return connect
