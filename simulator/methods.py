"""The methods of training in parallel: what each is, what it costs, when it pays, and its step, measured and simulated.

All of them are fields of `Plan`, or ways in which a model shares its layers, and go through the same `train`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from minidl.parallel import Plan
from minidl.trace import Trace
from simulator.compare import Comparison, predicted
from simulator.hardware import Cluster
from simulator.method_list import METHODS, Method
from simulator.prediction import Prediction
from simulator.traffic import Traffic, traffic


@dataclass(frozen=True)
class Row:
    """A method on a cluster. Names are those of the JSON file.

    sent: see `Traffic`. memory_bytes: of the fullest worker, and of one worker alone that trains on the same batches.
    Both, and the simulated step, are predicted; measured_step_seconds and error are None where nothing was measured.
    """

    name: str
    model: str
    what: str
    source: str
    pays: str
    plan: str
    workers: int
    sent: Traffic
    memory_bytes: float
    one_worker_memory_bytes: float
    simulated_step_seconds: float
    measured_step_seconds: float | None = None
    error: float | None = None


def chosen_methods(names: Sequence[str]) -> list[Method]:
    """Those that are named, or all. ValueError for a name that is unknown or given twice."""
    known = {method.name: method for method in METHODS}
    for name in names:
        if name not in known:
            raise ValueError(f"unknown method {name!r}: there are {'; '.join(known)}")
        if names.count(name) > 1:
            raise ValueError(f"the method {name} is given twice")
    return [known[name] for name in names] if names else list(METHODS)


def fitting(methods: Sequence[Method], workers: int) -> tuple[list[Method], dict[str, str]]:
    """The methods that can be spread over so many workers; and of the others the name, and why they cannot."""
    fits, others = [], {}
    for method in methods:
        try:
            method.experiment(workers)
            fits.append(method)
        except ValueError as error:
            others[method.name] = str(error)
    return fits, others


def usual_step(trace: Trace) -> Trace:
    """Of a trace the step that takes the median time, but not the first, if there are others."""
    steps = trace.steps()
    _, *later = zip((max(e.end for e in s.events) - s.events[0].start for s in steps), range(len(steps)), strict=True)
    place = sorted(later)[len(later) // 2][1] if later else 0
    return steps[place]


def compared(methods: Sequence[Method], comparison: Comparison, cluster: Cluster) -> list[Row]:
    """A row for each method, of a comparison of their experiments in the same order."""
    rows = []
    for method, row, prediction in zip(methods, comparison.rows, comparison.predictions, strict=True):
        measured = row.simulated_step_seconds, row.measured_step_seconds, row.error
        rows.append(_row(method, prediction, cluster, *measured))
    return rows


def simulated(methods: Sequence[Method], workers: int, cluster: Cluster) -> list[tuple[Row, Trace]]:
    """A row for each method on a cluster, where nothing is measured, and its trace."""
    found = []
    for method in methods:
        experiment = method.experiment(workers)
        prediction = predicted(experiment, replace(experiment.plans[0], precision=cluster.usual_precision), cluster)
        found.append((_row(method, prediction, cluster, prediction.step_seconds), prediction.trace))
    return found


def mean_error(rows: Sequence[Row]) -> float | None:
    """Mean absolute error of the simulated step; None where nothing was measured."""
    errors = [abs(row.error) for row in rows if row.error is not None]
    return statistics.mean(errors) if errors else None


def _row(method: Method, prediction: Prediction, cluster: Cluster, *seconds: float) -> Row:
    plan = prediction.plan
    alone = predicted(method.experiment(plan.workers), Plan(precision=plan.precision), cluster)
    return Row(
        method.name, method.model, method.what, method.source, method.pays, str(plan), plan.workers,
        traffic(prediction.program), prediction.memory_bytes, alone.memory_bytes, *seconds,
    )  # fmt: skip
