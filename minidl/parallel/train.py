"""train: the one way in which a model is trained, whatever the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike

import numpy as np

from minidl.parallel.chain_profile import sequence_length
from minidl.parallel.checker import check
from minidl.parallel.checkpoint import CheckpointFile, describe, steps_done
from minidl.parallel.contracts import callback_list
from minidl.parallel.plan import Plan
from minidl.parallel.prepare import Builder, Prepared, prepare
from minidl.parallel.rank_state import RankState, whole_model
from minidl.parallel.request import Request
from minidl.parallel.result import Run, StepRecord
from minidl.parallel.runtime.launch import launch
from minidl.parallel.runtime.steps import Job, Result, run_rank
from minidl.parallel.runtime.stopping import EndAtOnce
from minidl.ranks import leads
from minidl.structure import take_apart
from minidl.trace import Event, Trace


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
    the norm of the whole gradient. dtype: of parameters and inputs. device: "cpu", or "cuda" for one worker on a GPU;
    its trace has a lane of copies and is in the GPU's own time. timeout: see `launch`. trace_steps: how many of
    the last steps the trace holds.

    save: a file for a checkpoint, written every `save_every` steps, when the training is stopped and, unless
    `save_complete` is false, when all steps are done. resume: one to go on from, as the run that wrote it would have
    done; without save the new ones replace it. `steps` counts from its beginning, and must be more than it has done.
    The plan may be another one: under the same plan the numbers are the same to the last bit, under another up to
    floating-point order. The model, the data and all else that makes the numbers must be the same. Running statistics
    are each replica's own, and a replica that the file lacks begins with those of the first, so a model that has them
    goes on otherwise under another number of replicas. `minidl.load(path)["model"]` has the parameters.

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

    Where mpiexec has started the ranks, each calls `train` and returns the Run; the first alone shows the progress,
    calls the callbacks and writes the file.
    """
    request = Request(
        build=build, dataset=dataset, plan=Plan() if plan is None else plan, optimizer=optimizer, loss=loss,
        batch_size=batch_size, steps=steps, seed=seed, drop_last=drop_last, evaluate=evaluate,
        evaluate_every=evaluate_every, lr_schedule=lr_schedule, clip_norm=clip_norm, dtype=dtype,
        trace_steps=trace_steps, device=device, save=save, save_every=save_every, resume=resume,
    )  # fmt: skip
    if not (progress is None or isinstance(progress, bool)):
        raise TypeError(f"progress must be True, False or None, not {progress!r}")
    callbacks = callback_list(callbacks)
    prepared = prepare(
        build, request.plan, batch_size, example=request.example, loss=loss, optimizer=optimizer,
        clip=clip_norm is not None, dtype=request.dtype, device=request.device,
    )  # fmt: skip
    request.check_last_batches(prepared.model, prepared.profile.input)
    check(prepared.training)
    check(prepared.evaluation)
    return _Training(request, prepared, callbacks).run(timeout, progress, save_complete)


class _Training:
    """A training under way: the workers' job, and what they have told so far."""

    def __init__(self, request: Request, prepared: Prepared, callbacks: list[Callable[[StepRecord], None]]):
        self.request, self.prepared = request, prepared
        self.told = list(callbacks)  # and what shows the progress, while it does
        self.records: list[StepRecord] = []
        self.checkpoint, first_step = None, 0
        if request.save is not None:  # as always where it is resumed
            description = describe(
                prepared.model, request.optimizer, request.plan, seed=request.seed, batch_size=request.batch_size,
                samples=len(request.dataset), drop_last=request.drop_last, dtype=request.dtype.name,
                clip_norm=request.clip_norm,
            )  # fmt: skip
            take_apart(description)  # refused now and not after the first steps: options that no file can hold
            self.checkpoint = CheckpointFile(request.save, description, request.plan.workers, request.lr_schedule)
        if request.resume is not None:
            first_step = steps_done(request.resume, prepared.model, description, request.lr_schedule)
            if first_step >= request.steps:
                raise ValueError(
                    f"{request.resume} has done {first_step} steps already: steps={request.steps} asks for no more"
                )
        own = prepared.profile.input.shape[1] if request.plan.context > 1 else 0
        self.job = Job(request, prepared.training, prepared.evaluation, prepared.costs.layer_axes(), own, first_step)

    def run(self, timeout: float | None, progress: bool | None, save_complete: bool) -> Run:
        """Train to the end. Whatever is raised carries the Run so far."""
        from minidl.monitor.terminal import training_progress  # with rich, which workers do not need

        results: Sequence[Result] = ()
        try:
            try:
                with training_progress(self.request.steps, progress if leads() else False) as displays:
                    self.told += displays
                    results = launch(
                        run_rank, self.request.plan.workers, (self.job,), timeout=timeout,
                        on_report=self.on_report, stoppable=True,
                    )  # fmt: skip
            except BaseException as error:
                results = getattr(error, "results", ())  # of a training that was stopped
                if self.checkpoint and results:
                    self.checkpoint.try_to_write([result.state for result in results])
                raise
            if self.checkpoint and save_complete:
                self.checkpoint.write([result.state for result in results])
        except BaseException as error:
            error.run = self.result(results)
            raise
        return self.result(results)

    def on_report(self, rank: int, message: Sequence[StepRecord] | RankState) -> None:
        """Take what a worker reports."""
        if isinstance(message, RankState):
            self.checkpoint.add(rank, message)
        else:
            self.records.extend(message)
            tell(self.told, message)

    def told_event(self, event: Event) -> Event:
        """A worker's event, with details in place of the instruction."""
        costs, rank, what = self.prepared.costs, event.rank, event.details
        if what is None:
            return event
        if isinstance(what, tuple):
            instruction, nbytes = what
            return event._replace(details=costs.details(rank, instruction)._replace(nbytes=nbytes))
        return event._replace(details=costs.details(rank, what))

    def state(self, ranks: Sequence[RankState]) -> dict[str, np.ndarray]:
        """The whole model, in the order of its own `state_dict`."""
        whole = whole_model(ranks)
        return {name: whole[name] for name in self.prepared.model.state_dict() if name in whole}

    def result(self, results: Sequence[Result]) -> Run:
        """The Run of what was told, and of what the workers returned, if they did."""
        returned = [record for result in results for record in result.records]
        records, checkpoint = returned or self.records, self.checkpoint
        return Run(
            plan=self.request.plan,
            program=self.prepared.training,
            batch_size=self.request.batch_size,
            losses=[r.loss for r in records],
            step_times=[r.seconds for r in records],
            trace=Trace(self.told_event(event) for result in results for event in result.events),
            evaluations=[r.evaluation for r in records if r.evaluation],
            sequence=sequence_length(self.prepared.profile.input),
            first_step=self.job.first_step,
            memory_bytes=max((result.memory_bytes for result in results), default=0),
            saved_step=checkpoint and checkpoint.saved_step,
            save_error=checkpoint and checkpoint.error,
            _state=self.state([result.state for result in results]),
        )


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
