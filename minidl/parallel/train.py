"""train: the one way in which a model is trained, whatever the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from minidl.checks import check_count, check_positive
from minidl.data.batches import batches_per_epoch, split_batch
from minidl.files import check_writable
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
from minidl.parallel.layout import layout
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.profile import build_on_meta, chain_of, profile_chain, sequence_length
from minidl.parallel.program import evaluation_program, training_program
from minidl.parallel.rank_state import RankState, whole_model
from minidl.parallel.result import Run, StepRecord
from minidl.parallel.runtime.launch import launch
from minidl.parallel.runtime.steps import Job, run_rank
from minidl.parallel.runtime.stopping import EndAtOnce
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
    save_complete: bool = True,
    resume: str | PathLike | None = None,
    progress: bool | None = None,
) -> Run:
    """Train the chain that `build(mesh)` returns on `dataset` for `steps` steps, spread over workers as `plan` says.

    optimizer: a function of parameters that returns an Optimizer. batch_size: samples of a global batch; the last one
    of an epoch may be short, unless `drop_last` leaves it out. evaluate: a data set, evaluated every `evaluate_every`
    steps and after the last. callbacks: each is called in this process with every StepRecord, in order, also with
    those that still come after one has raised. lr_schedule: step -> factor on the learning rates. clip_norm: bound on
    the norm of the whole gradient. dtype: of parameters and inputs. timeout: see `launch`. trace_steps: how many of
    the last steps the trace holds.

    save: a file for a checkpoint, written every `save_every` steps, when the training is stopped and, unless
    `save_complete` is false, when all steps are done. resume: one to go on from, as the run that wrote it would have
    done, to the same bits; without save the new ones replace it. `steps` counts from its beginning, and must be more
    than it has done. The plan, the model, the data and all else that makes the numbers must be the same.
    `minidl.load(path)["model"]` has the parameters.

    progress: show on standard error how far the training is: its step, loss and time of a step. None: on a terminal, in
    a line that is gone at the end, and in a notebook, but not where another display of rich is live. True: elsewhere,
    too, in ten lines. False: nowhere.

    From the same seed, every plan gives the losses and parameters of the one-worker run, up to floating-point order.
    Raises ValueError for arguments that do not fit together, and OSError for a file that cannot be written, before a
    process starts; WorkerError as `launch` does. Ctrl-C, or a callback that raises an exception, ends the training
    after the step under way: the checkpoint is written, and KeyboardInterrupt or that exception raised. Ctrl-C pressed
    twice ends it at once. Whatever ends it, the exception carries as its `run` all there is: losses, times and
    evaluations, and where the workers could stop after a step also the trace and the parameters. A checkpoint that
    cannot be written is a warning; at the end of all steps it is an error.
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
    if resume is not None:
        resume = Path(resume).absolute()  # a function of the user's may change the folder
        save = resume if save is None else save
    if save is not None:
        check_writable(save := Path(save))
        save = save.absolute()
    elif save_every is not None:
        raise ValueError(f"save_every={save_every} needs save, the file to write")

    if not (progress is None or isinstance(progress, bool)):
        raise TypeError(f"progress must be True, False or None, not {progress!r}")

    model = build_on_meta(build, plan.mesh(0), dtype)
    profile = profile_chain(model, *_example(dataset, plan, batch_size, dtype), loss, optimizer)
    if steps >= per_epoch and not drop_last:
        check_last_batch(model, len(dataset), plan, batch_size, profile.input)
    checkpoint, first_step = None, 0
    if save is not None:
        description = describe(
            model, optimizer, plan, seed=seed, batch_size=batch_size, samples=len(dataset), drop_last=drop_last,
            dtype=dtype.name, clip_norm=clip_norm,
        )  # fmt: skip
        take_apart(description)  # refused now and not after the first steps: options that no file can hold
        checkpoint = CheckpointFile(save, description, plan.workers, lr_schedule)
    if resume is not None:
        first_step = steps_done(resume, model, description, lr_schedule)
        if first_step >= steps:
            raise ValueError(f"{resume} has done {first_step} steps already: steps={steps} asks for no more")
    stages = layout(plan, profile.costs, profile.parameter_bytes)
    training = training_program(plan, stages, clip=clip_norm is not None, norms=profile.norms)
    evaluation = evaluation_program(plan, stages)
    check(training)
    check(evaluation)
    job = Job(
        build=build, dataset=dataset, plan=plan, layout=stages, training=training, evaluation=evaluation,
        optimizer=optimizer, loss=loss, batch_size=batch_size, steps=steps, seed=seed, drop_last=drop_last, dtype=dtype,
        evaluate=evaluate, evaluate_every=evaluate_every or steps, lr_schedule=lr_schedule, clip_norm=clip_norm,
        trace_steps=trace_steps, first_step=first_step, resume=resume, saves=save is not None, save_every=save_every,
    )  # fmt: skip

    records: list[StepRecord] = []

    def on_report(rank: int, message: Sequence[StepRecord] | RankState) -> None:
        if isinstance(message, RankState):
            checkpoint.add(rank, message)
        else:
            records.extend(message)
            tell([*callbacks, *displays], message)

    def run_of(results: Sequence[tuple[list[Event], RankState]]) -> Run:
        return Run(
            plan=plan,
            program=training,
            batch_size=batch_size,
            losses=[r.loss for r in records],
            step_times=[r.seconds for r in records],
            trace=Trace(event for events, _ in results for event in events),
            evaluations=[r.evaluation for r in records if r.evaluation],
            sequence=sequence_length(profile.input),
            first_step=first_step,
            saved_step=checkpoint and checkpoint.saved_step,
            save_error=checkpoint and checkpoint.error,
            _state=whole_model([held for _, held in results]),
        )

    from minidl.monitor.terminal import training_progress  # with rich, which workers do not need

    results = ()
    try:
        try:
            with training_progress(steps, progress) as displays:
                results = launch(run_rank, plan.workers, (job,), timeout=timeout, on_report=on_report, stoppable=True)
        except BaseException as error:
            results = getattr(error, "results", ())  # of a training that was stopped
            if checkpoint and results:
                checkpoint.try_to_write([held for _, held in results])
            raise
        if checkpoint and save_complete:
            checkpoint.write([held for _, held in results])
    except BaseException as error:
        error.run = run_of(results)
        raise
    return run_of(results)


def tell(callbacks: Iterable[Callable[[StepRecord], None]], records: Iterable[StepRecord]) -> None:
    """Call each of the callbacks with each of the records, and then raise what one has raised first."""
    raised = None
    for record in records:
        for callback in callbacks:
            try:
                callback(record)
            except EndAtOnce:
                raise
            except BaseException as error:
                raised = error if raised is None else raised
    if raised is not None:
        raise raised


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
    replicas = split_batch(np.arange(short), plan.data, plan.micro_batches)
    sizes = {len(micro_batch) for micro_batches in replicas for micro_batch in micro_batches} - {0}
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
