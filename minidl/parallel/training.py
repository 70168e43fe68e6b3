"""A training under way: what `train` starts, hears from the workers, and makes its Run of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from minidl.parallel.chain_profile import sequence_length
from minidl.parallel.checkpoint import CheckpointFile, describe, steps_done
from minidl.parallel.prepare import Prepared
from minidl.parallel.rank_state import RankState, whole_model
from minidl.parallel.request import Request
from minidl.parallel.result import Run, StepRecord
from minidl.parallel.runtime.launch import launch
from minidl.parallel.runtime.steps import Job, Result, run_rank
from minidl.parallel.runtime.stopping import EndAtOnce
from minidl.ranks import leads, several
from minidl.structure import take_apart
from minidl.trace import Event, Trace


class Training:
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
        finally:
            if self.checkpoint and results and several():
                launch(_nothing, self.request.plan.workers)  # no rank goes on before the first has written the file
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
            memory=max((result.memory for result in results), key=lambda memory: memory.total, default=None),
            saved_step=checkpoint and checkpoint.saved_step,
            save_error=checkpoint and checkpoint.error,
            _state=self.state([result.state for result in results]),
        )


def _nothing(group) -> None:
    """What ranks do that only meet."""


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
