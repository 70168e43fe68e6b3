"""train: the one way in which a model is trained, whatever the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from minidl.checks import check_count, check_positive
from minidl.data.batches import batches_per_epoch, cut
from minidl.io import check_folder
from minidl.kernels import for_device
from minidl.kernels.meta import MetaArray
from minidl.nn.module import Module
from minidl.parallel import blocks
from minidl.parallel.arguments import (
    callback_list,
    check_builder,
    check_dataset,
    check_loss,
)
from minidl.parallel.check import check
from minidl.parallel.checkpoint import CheckpointFile, describe, steps_done
from minidl.parallel.mesh import Mesh
from minidl.parallel.partition import layout
from minidl.parallel.plan import Plan
from minidl.parallel.profile import build_on_meta, chain_of, profile_chain
from minidl.parallel.result import Run, StepRecord
from minidl.parallel.runtime.launch import launch
from minidl.parallel.runtime.loop import Job, run_rank
from minidl.parallel.schedules import evaluation_program, training_program
from minidl.parallel.snapshot import Snapshot
from minidl.parallel.snapshot import model as whole_model
from minidl.processes import WorkerError
from minidl.structure import take_apart
from minidl.tensor import dtype_of
from minidl.trace import Event, Trace

Builder = Callable[[Mesh], Module]


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
    save: str | PathLike | None = None,
    save_every: int | None = None,
    resume: str | PathLike | None = None,
) -> Run:
    """Train the chain that `build(mesh)` returns on `dataset` for `steps` steps, spread over workers as `plan` says.

    optimizer: a function of parameters that returns an Optimizer. batch_size: samples of a global batch; the last one
    of an epoch may be short, unless `drop_last` leaves it out. evaluate: a data set, evaluated every `evaluate_every`
    steps and after the last. callbacks: each is called in this process with every StepRecord, in order; one that raises
    ends the run. lr_schedule: step -> factor on the learning rates. clip_norm: bound on the norm of the whole gradient.
    dtype: of parameters and inputs. timeout: see `launch`. trace_steps: how many of the last steps the trace holds.

    save: a file for a checkpoint, written every `save_every` steps and at the end. resume: one to go on from, as the
    run that wrote it would have done, to the same bits: `steps` counts from its beginning. The plan, the model, the
    data and all else that makes the numbers must be the same. With save_every and without save the same file is written
    to. `minidl.load(path)["model"]` has the parameters.

    From the same seed, every plan gives the losses and parameters of the one-worker run, up to floating-point order.
    Raises ValueError for arguments that do not fit together before a process starts, WorkerError as `launch` does. That
    carries `run`, a Run with the losses, times and evaluations of the steps done. Ctrl-C (or a callback that raises
    KeyboardInterrupt) ends the training after the step under way: the checkpoint is written, and the KeyboardInterrupt
    carries all there is as its `run`; pressed twice it ends at once, with a `run` like a WorkerError's. A checkpoint
    that cannot be written is a warning; at the end of all steps it is an error, with all there is as its `run`.
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
    if save_every is not None:
        check_count("save_every", save_every)
        save = resume if save is None else save
        if save is None:
            raise ValueError(f"save_every={save_every} needs save, the file to write")
    if save is not None:
        check_folder(save)

    model = build_on_meta(build, plan.mesh(0), dtype)
    profile = profile_chain(model, *_example(dataset, plan, batch_size, dtype), loss, optimizer)
    if steps >= per_epoch and not drop_last:
        check_last_batch(model, len(dataset), plan, batch_size, profile.input)
    checkpoint, first_step = None, 0
    if save is not None or resume is not None:
        description = describe(
            model, optimizer, plan, seed=seed, batch_size=batch_size, samples=len(dataset), drop_last=drop_last,
            dtype=dtype.name, clip_norm=clip_norm,
        )  # fmt: skip
    if save is not None:
        take_apart(description)  # refused now and not after the first steps: options that no file can hold
        checkpoint = CheckpointFile(save, description, plan.workers, lr_schedule)
    if resume is not None:
        first_step = steps_done(resume, model, description, lr_schedule)
        if first_step >= steps:
            raise ValueError(f"{resume} has done {first_step} steps already: steps={steps} asks for no more")
        resume = Path(resume).absolute()
    cuts = layout(plan, profile.costs, profile.parameter_bytes)
    training = training_program(plan, cuts, clip=clip_norm is not None, norms=profile.norms)
    evaluation = evaluation_program(plan, cuts)
    check(training)
    check(evaluation)
    job = Job(
        build, dataset, plan, cuts, training, evaluation, optimizer, loss, batch_size, steps, seed, drop_last, dtype,
        evaluate, evaluate_every or steps, lr_schedule, clip_norm, trace_steps, first_step, resume, save is not None,
        save_every,
    )  # fmt: skip

    records: list[StepRecord] = []

    def on_report(rank: int, message: Sequence[StepRecord] | Snapshot) -> None:
        if isinstance(message, Snapshot):
            checkpoint.add(rank, message)
            return
        records.extend(message)
        for record in message:
            for callback in callbacks:
                callback(record)

    def run_of(events: Iterable[Event] = (), snapshots: Sequence[Snapshot] = ()) -> Run:
        return Run(
            plan,
            training,
            [r.loss for r in records],
            [r.seconds for r in records],
            Trace(events),
            [r.evaluation for r in records if r.evaluation],
            first_step,
            checkpoint.saved_step if checkpoint else None,
            whole_model(snapshots),
        )

    def finished(results: list[tuple[list[Event], Snapshot]], write: Callable[[list[Snapshot]], None]) -> Run:
        run = run_of((event for own, _ in results for event in own), [held for _, held in results])
        if checkpoint:
            try:
                write([held for _, held in results])
            except (OSError, ValueError, TypeError) as error:
                error.run = run
                raise
            run.saved_step = checkpoint.saved_step
        return run

    try:
        results = launch(run_rank, plan.workers, (job,), timeout=timeout, on_report=on_report, stoppable=True)
    except WorkerError as error:
        error.run = run_of()
        raise
    except KeyboardInterrupt as error:
        stopped = hasattr(error, "results")
        error.run = finished(error.results, checkpoint and checkpoint.try_to_write) if stopped else run_of()
        raise
    return finished(results, checkpoint and checkpoint.write)


def _example(dataset, plan: Plan, batch_size: int, dtype) -> list[MetaArray]:
    """Inputs and targets of a micro-batch of samples like those of `dataset`, on meta."""
    samples = batch_size // (plan.data * plan.micro_batches)
    return [
        MetaArray((samples, *array.shape[1:]), dtype if array.dtype.kind == "f" else array.dtype)
        for array in dataset[np.arange(1)]
    ]


def check_last_batch(model: Module, samples: int, plan: Plan, batch_size: int, x: MetaArray) -> None:
    """ValueError if the model cannot be trained on the smallest micro-batch of an epoch's last, short batch.

    Batch norm cannot on a single value. model: on meta. x: a micro-batch of a whole batch, on which it has run.
    """
    short = samples % batch_size
    sizes = {len(part) for parts in cut(np.arange(short), plan.data, plan.micro_batches) for part in parts} - {0}
    if not sizes:
        return
    array = MetaArray((min(sizes), *x.shape[1:]), x.dtype)
    try:
        for block in chain_of(model.train(True)):
            array, _ = blocks.forward(block, array, False)
    except ValueError as error:
        raise ValueError(
            f"of {samples} samples, the last batch of an epoch has {short}, a micro-batch of it (data={plan.data}, "
            f"micro_batches={plan.micro_batches}) {min(sizes)}: {error}; choose another batch_size than {batch_size}, "
            "or drop_last"
        ) from None
