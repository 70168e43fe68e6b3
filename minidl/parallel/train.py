"""train: the one way in which a model is trained, whatever the plan."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from minidl.checks import check_count, check_positive
from minidl.data.batches import batch_indices, batches, batches_per_epoch, cut, epoch_order
from minidl.data.datasets import set_epoch
from minidl.kernels import for_device
from minidl.kernels.meta import MetaArray
from minidl.nn.module import Module
from minidl.nn.parameter import Shard
from minidl.optim.lr_scheduler import LRScheduler
from minidl.parallel import blocks
from minidl.parallel.arguments import (
    callback_list,
    check_builder,
    check_dataset,
    check_loss,
    make_optimizer,
)
from minidl.parallel.check import check
from minidl.parallel.mesh import AXES, LAYER_AXES, Mesh
from minidl.parallel.partition import Layout, layout
from minidl.parallel.plan import Plan
from minidl.parallel.profile import ChainProfile, build_on_meta, chain_of, profile_chain
from minidl.parallel.runtime.launch import launch
from minidl.parallel.runtime.stage import Stage
from minidl.parallel.runtime.worker import Worker
from minidl.parallel.schedules import Program, evaluation_program, training_program
from minidl.tensor import device as default_device
from minidl.tensor import dtype_of
from minidl.trace import Event, Trace

REPORT_SECONDS = 0.05  # between two reports of a worker to the launcher
Builder = Callable[[Mesh], Module]


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


@dataclass
class Run:
    """The result of `train`. losses and step_times have one entry a step; step_seconds is the median time."""

    plan: Plan
    program: Program
    losses: list[float]
    step_times: list[float]
    trace: Trace
    evaluations: list[Evaluation]
    _state: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

    @property
    def step_seconds(self) -> float:
        return statistics.median(self.step_times)

    def state_dict(self) -> dict[str, np.ndarray]:
        """name -> array: the whole parameters, whatever the plan, and the buffers of the first replica."""
        return dict(self._state)


@dataclass(frozen=True)
class _Job:
    """What every worker needs to know."""

    build: Builder
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


def train(
    build: Builder,
    dataset,
    plan: Plan | None = None,
    *,
    optimizer: Callable,
    loss,
    batch_size: int,
    steps: int,
    seed: int = 0,
    drop_last: bool = False,
    evaluate=None,
    evaluate_every: int | None = None,
    callbacks: Iterable[Callable[[StepRecord], None]] = (),
    lr_schedule: Callable[[int], float] | None = None,
    clip_norm: float | None = None,
    dtype="float32",
    device: str = "cpu",
    timeout: float | None = None,
    trace_steps: int = 200,
) -> Run:
    """Train the chain that `build(mesh)` returns on `dataset` for `steps` steps, spread over workers as `plan` says.

    optimizer: a function of parameters that returns an Optimizer. batch_size: samples of a global batch; the last one
    of an epoch may be short, unless `drop_last` leaves it out. evaluate: a data set, evaluated every `evaluate_every`
    steps and after the last. callbacks: each is called in this process with every StepRecord, in order; one that raises
    ends the run. lr_schedule: step -> factor on the learning rates. clip_norm: bound on the norm of the whole gradient.
    dtype: of parameters and inputs. timeout: see `launch`. trace_steps: how many of the last steps the trace holds.

    From the same seed, every plan gives the losses and parameters of the one-worker run, up to floating-point order.
    Raises ValueError for arguments that do not fit together before a process starts, WorkerError as `launch` does.
    """
    plan = plan or Plan()
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a Plan, not a {type(plan).__name__}")
    plan.check_batch(batch_size)
    if evaluate_every is not None:
        check_count("evaluate_every", evaluate_every)
    check_count("trace_steps", trace_steps)
    check_count("seed", seed, least=0)
    check_builder(build)
    check_dataset("the data set", dataset)
    if evaluate is not None:
        check_dataset("the data set to evaluate", evaluate)
    check_loss(loss)
    callbacks = callback_list(callbacks)
    if lr_schedule is not None and not callable(lr_schedule):
        raise TypeError(f"lr_schedule must be a function of the step, not a {type(lr_schedule).__name__}")
    if clip_norm is not None:
        check_positive("clip_norm", clip_norm)
    if device != "cpu":
        for_device(device)
        raise ValueError(f"device {device!r} computes nothing: train on 'cpu', or price the plan with the simulator")
    dtype = dtype_of(dtype)
    if dtype.kind != "f":
        raise ValueError(f"parameters of dtype {dtype} cannot be trained: use float32 or float64")
    per_epoch = batches_per_epoch(len(dataset), batch_size, drop_last)
    if not per_epoch:
        raise ValueError(f"drop_last leaves nothing of {len(dataset)} samples: a batch has {batch_size}")
    check_count("steps", steps)
    profile = profile_on(build, dataset, plan, loss, optimizer, batch_size, dtype)
    if steps >= per_epoch and not drop_last:
        check_last_batch(build, len(dataset), plan, batch_size, profile.input, dtype)
    cuts = layout(plan, profile.costs, profile.parameter_bytes)
    training = training_program(plan, cuts, clip=clip_norm is not None, norms=profile.norms)
    evaluation = evaluation_program(plan, cuts)
    check(training)
    check(evaluation)
    job = _Job(
        build, dataset, plan, cuts, training, evaluation, optimizer, loss, batch_size, steps, seed, drop_last, dtype,
        evaluate, evaluate_every or steps, lr_schedule, clip_norm, trace_steps,
    )  # fmt: skip

    records: list[StepRecord] = []

    def on_report(rank: int, new: Sequence[StepRecord]) -> None:
        records.extend(new)
        for record in new:
            for callback in callbacks:
                callback(record)

    results = launch(_run_rank, plan.workers, (job,), timeout=timeout, on_report=on_report)
    return Run(
        plan,
        training,
        [r.loss for r in records],
        [r.seconds for r in records],
        Trace(event for events, _ in results for event in events),
        [r.evaluation for r in records if r.evaluation],
        _join([parts for _, parts in results]),
    )


def profile_on(build: Builder, dataset, plan: Plan, loss, optimizer, batch_size: int, dtype="float32") -> ChainProfile:
    """The profile of the chain under `plan`, for micro-batches of samples like those of `dataset`."""
    samples = batch_size // (plan.data * plan.micro_batches)
    x, y = (
        MetaArray((samples, *array.shape[1:]), dtype if array.dtype.kind == "f" else array.dtype)
        for array in dataset[np.arange(1)]
    )
    return profile_chain(build_on_meta(build, plan.mesh(0), dtype), x, y, loss, optimizer)


def check_last_batch(build: Builder, samples: int, plan: Plan, batch_size: int, x: MetaArray, dtype) -> None:
    """ValueError if the model cannot be trained on the smallest micro-batch of an epoch's last, short batch.

    Batch norm cannot on a single value. x: a micro-batch of a whole batch, on which the model has run.
    """
    short = samples % batch_size
    sizes = {len(part) for parts in cut(np.arange(short), plan.data, plan.micro_batches) for part in parts} - {0}
    if not sizes:
        return
    model = build_on_meta(build, plan.mesh(0), dtype).train(True)
    array = MetaArray((min(sizes), *x.shape[1:]), x.dtype)
    try:
        for block in chain_of(model):
            array, _ = blocks.forward(block, array, False)
    except ValueError as error:
        raise ValueError(
            f"of {samples} samples, the last batch of an epoch has {short}, a micro-batch of it (data={plan.data}, "
            f"micro_batches={plan.micro_batches}) {min(sizes)}: {error}; choose another batch_size than {batch_size}, "
            "or drop_last"
        ) from None


def _run_rank(group, job: _Job) -> tuple[list[Event], dict[str, tuple[np.ndarray, Shard | None]]]:
    """What one worker does: returns its events, and its parameters and buffers if it is of the first replica."""
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
    worker = Worker(stage, mesh, job.loss, optimizer, job.seed, job.clip_norm)
    training, evaluation = job.training[mesh.rank].step, job.evaluation[mesh.rank].step
    scheduler = LRScheduler(optimizer, job.lr_schedule) if optimizer and job.lr_schedule else None
    replica, reports = mesh.coordinate("data"), mesh.rank == mesh.world_size - 1
    per_epoch = batches_per_epoch(len(job.dataset), job.batch_size, job.drop_last)
    events: deque[list[tuple]] = deque(maxlen=job.trace_steps)
    records, reported = [], time.perf_counter()

    epoch, order = -1, None
    for step in range(job.steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(len(job.dataset), job.seed, epoch)
            set_epoch(job.dataset, epoch)
        samples = cut(batch_indices(order, step % per_epoch, job.batch_size), plan.data, plan.micro_batches)[replica]
        if scheduler and step:
            scheduler.step()
        start = time.perf_counter()
        totals = worker.run(training, job.dataset, samples, step)
        seconds = time.perf_counter() - start
        events.append(worker.events)
        worker.events = []

        evaluated = None
        last = step == job.steps - 1
        if job.evaluate is not None and (last or (step + 1) % job.evaluate_every == 0):
            evaluated = _evaluate(worker, evaluation, job, replica, step + 1)
        if reports:
            records.append(StepRecord(step, _mean(totals.loss, totals.weight), seconds, evaluated))
            if last or time.perf_counter() - reported > REPORT_SECONDS:
                group.report(records)
                records, reported = [], time.perf_counter()

    stored = [*stage.parameters, *stage.buffers] if replica == 0 else []
    parts = {tensor.name: (tensor.data, tensor.shard) for tensor in stored}
    return [Event._make(event) for step in events for event in step], parts


def _evaluate(worker: Worker, program, job: _Job, replica: int, step: int) -> Evaluation:
    """Evaluate the model that `Run.state_dict` would give: by the running statistics of the first replica."""
    worker.stage.train(False)
    for buffer in worker.stage.buffers:
        worker.mesh.group("data").broadcast(buffer.data)
    order, batch_size = np.arange(len(job.evaluate)), job.batch_size
    loss = weight = correct = answers = 0.0
    for batch in batches(order, batch_size):
        samples = cut(batch, job.plan.data, job.plan.micro_batches)[replica]
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


def _join(parts: Sequence[dict[str, tuple[np.ndarray, Shard | None]]]) -> dict[str, np.ndarray]:
    """Whole parameters from the parts that the ranks hold, in the order of the chain."""
    whole: dict[str, np.ndarray] = {}
    for held in parts:
        for name, (part, shard) in held.items():
            if shard is None:
                whole[name] = part
            else:
                if name not in whole:
                    whole[name] = np.empty(shard.whole_shape(part.shape), part.dtype)
                shard.paste(part, whole[name])
    return whole
