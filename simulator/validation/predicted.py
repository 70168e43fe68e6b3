"""Each row predicted, or why it is not."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context

from minidl.spawn import begin_under
from simulator.predict import simulate
from simulator.validation.cases import Case, case, precisions
from simulator.validation.null import flops
from simulator.validation.rows import Row

FEW = 100  # rows: to start processes takes as long
RUN = 24  # rows that a process takes at once: neighbours are alike, and share what is remembered of blocks


@dataclass(frozen=True)
class Predicted:
    """A row, and what the simulator says of it.

    unfitted_seconds: of a step, with no constant; None where it was not simulated, for the `reason`. constant: by which
    a step of that stack on that device is longer, 1 where nothing was fitted. device: its name. best_seconds: what the
    null model's FLOPs take at the peak of all devices.
    """

    row: Row
    unfitted_seconds: float | None
    constant: float
    device: str
    best_seconds: float | None
    reason: str | None = None

    @property
    def seconds(self) -> float | None:
        """With the constant."""
        return None if self.unfitted_seconds is None else self.constant * self.unfitted_seconds

    def error(self, fitted: bool) -> float | None:
        """Of the predicted step time, over the measured one; None where one of them is not there."""
        seconds = self.seconds if fitted else self.unfitted_seconds
        return None if seconds is None or self.row.step_seconds is None else seconds / self.row.step_seconds - 1


def predicted(rows: Sequence[Row], processes: int) -> Iterator[Predicted]:
    """Each row, in order, predicted by so many processes, or by this one where rows are few."""
    if processes == 1 or len(rows) < FEW:
        yield from map(predict, rows)
        return
    others = set(active_children())
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (os.getpid(),)) as pool:
        try:
            # They begin with Ctrl-C held off, until they can say that they leave it to this process.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                runs = [pool.submit(_predict_all, rows[at : at + RUN]) for at in range(0, len(rows), RUN)]
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for run in runs:
                yield from run.result()
        except BaseException:  # nobody waits for the others: the pool would, for all that it was given
            for process in set(active_children()) - others:
                process.kill()
            raise


def _begin(parent: int) -> None:
    begin_under(parent)
    gc.disable()  # predictions leave next to no cycles of garbage, and to look for them takes a tenth of the time


def _predict_all(rows: Sequence[Row]) -> list[Predicted]:
    return [predict(row) for row in rows]


def predict(row: Row) -> Predicted:
    """One row. What cannot be simulated has its reason: one row must not take the others with it."""
    best, constant, device = None, 1.0, ""
    try:
        found = case(row)
        device = found.cluster.device
        constant = found.stack.pace(device)
        if work := flops(row):
            best = work / (found.plan.workers * found.cluster.peak_flops(precisions(row)[1]))
        return Predicted(row, step_seconds(found), constant, device, best)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, ValueError):
            reason = f"{type(error).__name__}: {reason}"
        return Predicted(row, None, constant, device, best, reason)


def step_seconds(found: Case) -> float:
    """Of a step of a case: the weighted sum over its numbers of micro-batches."""
    return sum(weight * _simulated(found, count) for count, weight in found.counts)


def _simulated(found: Case, micro_batches: int) -> float:
    plan, batch_size = replace(found.plan, micro_batches=micro_batches), micro_batches * found.samples
    return simulate(
        found.build, plan, found.cluster, batch_size, optimizer=found.optimizer, stack=found.stack, fitted=False
    ).step_seconds
