"""The steps of a training on one rank: which samples, which learning rate, what is reported and when."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

import numpy as np

from minidl import io
from minidl.data.batches import batch_indices, batches, batches_per_epoch, epoch_order, split_batch
from minidl.data.datasets import set_epoch
from minidl.optim.lr_scheduler import LRScheduler
from minidl.parallel import rank_state
from minidl.parallel.arguments import make_optimizer
from minidl.parallel.layout import Layout
from minidl.parallel.mesh import AXES, LAYER_AXES, Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.program import Program
from minidl.parallel.rank_state import RankState
from minidl.parallel.result import Evaluation, StepRecord
from minidl.parallel.runtime.stage import Stage
from minidl.parallel.runtime.worker import Worker
from minidl.tensor import device as default_device
from minidl.trace import Event

REPORT_SECONDS = 0.05  # between two reports of a worker to the launcher


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker needs to know. first_step: how many are done already, in the checkpoint `resume`.

    saves: whether a RankState has all that a checkpoint needs, and not the model alone. save_every: after how many
    steps each rank reports one; with None, none does before the end.
    """

    build: Callable
    dataset: object
    plan: Plan
    layout: Layout
    training: Program
    evaluation: Program
    optimizer: Callable
    loss: object
    batch_size: int
    steps: int
    seed: int
    drop_last: bool
    dtype: np.dtype
    evaluate: object
    evaluate_every: int
    lr_schedule: Callable[[int], float] | None
    clip_norm: float | None
    trace_steps: int
    first_step: int
    resume: str | PathLike | None
    saves: bool
    save_every: int | None


def run_rank(group, job: Job) -> tuple[list[Event], RankState]:
    """What one worker does: it reports records and its state, and returns its events and its state at the end."""
    plan = job.plan
    mesh = Mesh(plan.axes, group.rank, _connect(group))
    together = ("pipeline", "data"), ("pipeline", "tensor"), ("data", "tensor"), ("pipeline", "data", "tensor")
    for axes in (("data",), ("pipeline",), *LAYER_AXES, *together):
        mesh.group(*axes)  # made by all ranks in the same order
    with default_device("meta"):
        model = job.build(mesh)
    stage = Stage(model, job.layout, mesh, job.seed, job.dtype, plan.optimizer_shards)
    stage.train(True)
    optimizer = make_optimizer(job.optimizer, stage.parameters) if stage.parameters else None
    if job.resume is not None:
        rank_state.restore(io.load(job.resume), stage, optimizer, mesh)
    worker = Worker(stage, mesh, job.loss, optimizer, job.seed, job.clip_norm)
    training, evaluation = job.training[mesh.rank].step, job.evaluation[mesh.rank].step
    scheduler = None
    if optimizer and job.lr_schedule:
        scheduler = LRScheduler(optimizer, lambda step: job.lr_schedule(job.first_step + step))
    replica, reports = mesh.coordinate("data"), mesh.rank == mesh.world_size - 1
    per_epoch = batches_per_epoch(len(job.dataset), job.batch_size, job.drop_last)
    events: deque[list[tuple]] = deque(maxlen=job.trace_steps)
    records, reported = [], time.perf_counter()

    def held(step: int) -> RankState:
        return rank_state.take(step, stage, optimizer if job.saves else None, mesh, plan.optimizer_shards > 1)

    done, epoch, order = job.first_step, -1, None
    try:
        while done < job.steps and group.begins(done):
            step, done = done, done + 1
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = epoch_order(len(job.dataset), job.seed, epoch)
                set_epoch(job.dataset, epoch)
            batch = batch_indices(order, step % per_epoch, job.batch_size)
            samples = split_batch(batch, plan.data, plan.micro_batches)[replica]
            if scheduler and step > job.first_step:
                scheduler.step()
            start = time.perf_counter()
            totals = worker.run(training, job.dataset, samples, step)
            seconds = time.perf_counter() - start
            events.append(worker.events)
            worker.events = []

            evaluated = None
            last = done == job.steps
            if job.evaluate is not None and (last or done % job.evaluate_every == 0):
                evaluated = _evaluate(worker, evaluation, job, replica, done)
            saves = bool(job.save_every) and done % job.save_every == 0 and not last
            if reports:
                records.append(StepRecord(step, _mean(totals.loss, totals.weight), seconds, evaluated))
                if saves or time.perf_counter() - reported > REPORT_SECONDS:
                    group.report(records)
                    records, reported = [], time.perf_counter()
            if saves:
                group.report(held(done))
    finally:
        with contextlib.suppress(OSError):  # the launcher listens no longer: another rank failed first
            if records:
                group.report(records)
    return [Event._make(event) for step in events for event in step], held(done)


def _evaluate(worker: Worker, program, job: Job, replica: int, step: int) -> Evaluation:
    """Evaluate the model that `Run.state_dict` would give: by the running statistics of the first replica."""
    worker.stage.train(False)
    for buffer in worker.stage.buffers:
        worker.mesh.group("data").broadcast(buffer.data)
    loss = weight = correct = answers = 0.0
    for batch in batches(np.arange(len(job.evaluate)), job.batch_size):
        samples = split_batch(batch, job.plan.data, job.plan.micro_batches)[replica]
        totals = worker.run(program, job.evaluate, samples, step)
        loss, weight = loss + totals.loss, weight + totals.weight
        correct, answers = correct + totals.correct, answers + totals.answers
    worker.stage.train(True)
    worker.events = []
    return Evaluation(step, _mean(loss, weight), correct / answers if answers else 0.0)


def _mean(total: float, weight: float) -> float:
    return total / weight if weight else math.nan


def _connect(world) -> Callable:
    """Makes the groups of a mesh by splitting `world`: those of the same axes do not overlap."""

    def connect(mesh: Mesh, axes: tuple[str, ...]):
        if axes == AXES:
            return world
        ranks = mesh.ranks(*axes)
        group = world.split(color=ranks[0])
        group.axis = "+".join(axes)
        return group

    return connect
