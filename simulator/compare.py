"""Simulated against measured: trains under several plans, simulates the same programs, sets them side by side."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from minidl import data, models, nn, optim
from minidl.parallel import Plan, Run, train
from minidl.trace import Trace
from simulator.calibrate import Calibration, drift
from simulator.predict import Prediction, simulate

BATCH_SIZE = 256
ROUNDS = 3  # all plans in turn, so that a slow minute of the machine falls on all of them


@dataclass(frozen=True)
class Experiment:
    """A model, by the name it has in the table, and the plans to try on it; the first is what speedups refer to."""

    name: str
    build: Callable
    plans: tuple[Plan, ...]
    steps: int


def experiments() -> tuple[Experiment, ...]:
    """Perceptron and convolutional network on the digits, with 1, 2 and 4 workers."""
    return (
        Experiment(
            "mlp 64-512-512-512-512-512-10",
            lambda mesh: models.mlp((64, 512, 512, 512, 512, 512, 10), mesh),
            (
                Plan(),
                Plan(data=2),
                Plan(data=2, sharding="optimizer"),
                Plan(pipeline=2, micro_batches=4, schedule="gpipe"),
                Plan(pipeline=2, micro_batches=4, schedule="1f1b"),
                Plan(tensor=2),
                Plan(data=4),
                Plan(data=2, pipeline=2, micro_batches=2),
                Plan(data=2, tensor=2),
                Plan(tensor=4),
            ),
            30,
        ),
        Experiment("cnn", models.builder("cnn-digits"), (Plan(), Plan(data=2), Plan(pipeline=2, micro_batches=4)), 30),
    )


@dataclass(frozen=True)
class Row:
    """One plan, measured and simulated. Names are those of compare.json.

    drift: how much slower the machine was beside this measurement than when it was calibrated, by a fixed probe. The
    simulated seconds are for the machine as it was during the comparison: they contain the median drift of all rows.
    """

    model: str
    plan: str
    workers: int
    oversubscribed: bool
    measured_step_seconds: float
    simulated_step_seconds: float
    measured_speedup: float
    simulated_speedup: float
    measured_bubble_fraction: float
    simulated_bubble_fraction: float
    measured_exposed_communication_seconds: float
    simulated_exposed_communication_seconds: float
    drift: float

    @property
    def error(self) -> float:
        """Of the simulated step time, relative to the measured one; negative where the simulator is too fast."""
        return self.simulated_step_seconds / self.measured_step_seconds - 1


@dataclass(frozen=True)
class Comparison:
    """The rows, and a measured run and a prediction for each, in the same order."""

    machine: dict
    rows: list[Row]
    runs: list[Run]
    predictions: list[Prediction]

    def mean_error(self, oversubscribed: bool) -> float | None:
        """Mean absolute error of the step time over the rows that are (not) oversubscribed; None if there are none."""
        errors = [abs(row.error) for row in self.rows if row.oversubscribed == oversubscribed]
        return statistics.mean(errors) if errors else None

    def as_dict(self) -> dict[str, object]:
        """For programs: the machine and the rows."""
        return {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}

    def traces(self) -> dict[str, Trace]:
        """The measured and the simulated trace of each row, by names for their files."""
        found = {}
        for row, run, prediction in zip(self.rows, self.runs, self.predictions, strict=True):
            name = re.sub("[^a-z0-9.]+", "-", f"{row.model} {row.plan}".lower())
            for trace in (run.trace, prediction.trace):
                found[f"trace-{name}-{trace.kind}.json"] = trace
        return found


def compare(
    calibration: Calibration,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    chosen: Sequence[Experiment] | None = None,
) -> Comparison:
    """Measure and simulate every plan. progress: told what runs, how many runs are done, and of how many."""
    chosen = chosen or experiments()
    cluster = calibration.cluster()
    cores = calibration.machine["cores"]
    train_set, _ = data.digits()
    settings = {"optimizer": _sgd, "loss": nn.CrossEntropyLoss()}
    jobs = [(e, plan) for e in chosen for plan in e.plans]
    measured: list[list[Run]] = [[] for _ in jobs]
    drifts: list[list[float]] = [[] for _ in jobs]
    total = ROUNDS * len(jobs)
    for turn in range(ROUNDS):
        for i, (experiment, plan) in enumerate(jobs):
            progress(f"{experiment.name}: {plan}", turn * len(jobs) + i, total)
            if i % 4 == 0:
                drift_now = drift(calibration)
            run = train(
                experiment.build, train_set, plan, batch_size=BATCH_SIZE, steps=experiment.steps, progress=False,
                **settings,
            )  # fmt: skip
            measured[i].append(run)
            drifts[i].append(drift_now)

    slower = statistics.median(itertools.chain(*drifts))
    rows, runs, predictions = [], [], []
    baseline: tuple[float, float] = (0.0, 0.0)
    example = train_set[np.arange(1)]
    for (experiment, plan), tries, beside in zip(jobs, measured, drifts, strict=True):
        prediction = simulate(experiment.build, plan, cluster, BATCH_SIZE, example=example, **settings)
        run = sorted(tries, key=lambda run: run.step_seconds)[len(tries) // 2]  # the median try
        if plan == experiment.plans[0]:
            baseline = (run.step_seconds, prediction.step_seconds)
        rows.append(Row(
            experiment.name, str(plan), plan.workers, plan.workers > cores,
            run.step_seconds, prediction.step_seconds * slower,
            baseline[0] / run.step_seconds, baseline[1] / prediction.step_seconds,
            run.trace.bubble_fraction, prediction.trace.bubble_fraction,
            run.trace.exposed_communication, prediction.trace.exposed_communication * slower,
            statistics.median(beside),
        ))  # fmt: skip
        runs.append(run)
        predictions.append(prediction)
    return Comparison(calibration.machine, rows, runs, predictions)


def _sgd(parameters):
    return optim.SGD(parameters, lr=0.05, momentum=0.9)
