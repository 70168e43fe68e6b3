"""Simulated against measured: trains under several plans, simulates the same programs, sets them side by side."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field

from minidl.commands.own_model import blamed
from minidl.parallel import Plan, Run, forkserver, train
from minidl.trace import Trace
from simulator.calibrate import drift
from simulator.calibration import BUSY, Calibration, at_once
from simulator.experiments import ROUNDS, WARM_UP, Experiment, experiments, sgd
from simulator.hardware import Cluster
from simulator.predict import simulate
from simulator.prediction import Prediction

PROBED = 4  # before every so many runs it is found how fast the machine is just now
RUN_SECONDS, LEAST_STEPS = 1.0, 10  # a run has as many steps as fit, by the prediction, but not fewer than these

WAS_BUSY = "Other programs kept this machine busy: the comparison says little; run it again."
MEASURES = {  # what table and picture show, by name
    "plan": "×4: in 4 micro-batches; ZeRO-1: each replica updates its share",
    "speedup": "the step time of one worker over that of the plan",
    "step time": "of one training step, the median of a run",
    "error": "of the simulated step time, against the measured one",
    "exposed comm.": "% of a step in which a worker communicates and does not compute",
    "idle": "% of a step in which a worker does neither",
    "memory": "simulated, of the fullest worker: what it holds for the training",
}


@dataclass(frozen=True)
class Row:
    """One plan, measured and simulated. Names are those of compare.json.

    drift: how much slower the machine was beside this measurement than when it was calibrated, by a fixed probe, on one
    core for one worker and on all at once for several. The simulated seconds are for the machine as it was during the
    comparison: they contain the median drift of all rows of the kind.
    null_step_seconds: what a person would have guessed, had one worker been measured: its step, over the workers that
    can run at once. simulated_memory_bytes: of the fullest worker.
    bubble_fraction, exposed_communication_seconds: over all steps of a run's trace but the first; step_seconds leave
    out the first WARM_UP.
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
    null_step_seconds: float
    simulated_memory_bytes: float

    @property
    def error(self) -> float:
        """Of the simulated step time, relative to the measured one; negative where the simulator is too fast."""
        return self.simulated_step_seconds / self.measured_step_seconds - 1

    @property
    def null_error(self) -> float:
        """The same of the null model: 0 for the first plan, of one worker, whose time it has been told."""
        return self.null_step_seconds / self.measured_step_seconds - 1

    def shares(self, kind: str) -> tuple[float, float, float]:
        """Shares of a step, "measured" or "simulated": a worker computes; only communicates; does neither (mean)."""
        exposed = getattr(self, f"{kind}_exposed_communication_seconds") / getattr(self, f"{kind}_step_seconds")
        idle = getattr(self, f"{kind}_bubble_fraction")
        return max(0.0, 1 - exposed - idle), exposed, idle


@dataclass(frozen=True)
class Comparison:
    """The rows, and a measured run and a prediction for each, in the same order. machine: see `Calibration`."""

    machine: dict
    rows: list[Row]
    runs: list[Run]
    predictions: list[Prediction]

    @property
    def busy(self) -> bool:
        """Whether the probe beside the runs varied so much that the comparison says little."""
        drifts = [row.drift for row in self.rows]
        return max(drifts) > BUSY * min(drifts)

    def mean_error(self, oversubscribed: bool) -> float | None:
        """Mean absolute error of the step time over the rows that are (not) oversubscribed; None if there are none."""
        return _mean_absolute(row.error for row in self.rows if row.oversubscribed == oversubscribed)

    def mean_errors_of_several(self, oversubscribed: bool) -> tuple[float | None, float | None]:
        """The same without the rows of one worker, of which the null model is told: the simulator's and its."""
        rows = [row for row in self.rows if row.oversubscribed == oversubscribed and row.workers > 1]
        return _mean_absolute(row.error for row in rows), _mean_absolute(row.null_error for row in rows)

    def as_dict(self) -> dict[str, object]:
        """For programs: the machine and the rows."""
        return {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}

    def traces(self) -> dict[str, Trace]:
        """The measured and the simulated trace of each row, by names for their files, each row's another.

        On a GPU the measured one has a lane of copies between host and device. The simulated one has none: there
        LoadInput and LoadTarget cost what a kernel costs that moves their bytes, and nothing waits for a copy.
        """
        found: dict[str, Trace] = {}
        taken: set[str] = set()
        for row, run, prediction in zip(self.rows, self.runs, self.predictions, strict=True):
            plain = re.sub("[^a-z0-9.]+", "-", f"{row.model} {row.plan}".lower())
            numbered = (f"{plain}-{number}" for number in itertools.count(2))
            name = next(name for name in itertools.chain([plain], numbered) if name not in taken)
            taken.add(name)
            for trace in (run.trace, prediction.trace):
                found[f"trace-{name}-{trace.kind}.json"] = trace
        return found


def compare(
    calibration: Calibration,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    chosen: Sequence[Experiment] | None = None,
    rounds: int = ROUNDS,
) -> Comparison:
    """Simulate and measure every plan, all of them in turn for some rounds, of which a row shows the median run.

    calibration: of the device on which is trained; ValueError for a plan of several workers on a GPU. progress: told
    what runs, how many runs are done, and of how many.
    """
    cluster = calibration.cluster()
    device, slots = calibration.device, at_once(calibration.machine)
    jobs = []
    for experiment in chosen or experiments(device=device):
        for plan in experiment.plans:
            jobs.append(_Job(experiment, plan, device, predicted(experiment, plan, cluster)))

    with forkserver():
        for turn in range(rounds):
            for i, job in enumerate(jobs):
                progress(f"{job.plan.label}, {job.experiment.name}", turn * len(jobs) + i, rounds * len(jobs))
                if i % PROBED == 0:
                    alone, together = drift(calibration)
                job.measure(together if job.plan.workers > 1 else alone)

    rows = []
    for job in jobs:
        alike = (other.drifts for other in jobs if (other.plan.workers > 1) == (job.plan.workers > 1))
        slower = statistics.median(itertools.chain(*alike))
        run, prediction = job.run, job.prediction
        if job.plan == job.experiment.plans[0]:
            one, one_simulated = job, prediction.step_seconds * slower
        rows.append(Row(
            job.experiment.name, str(job.plan), job.plan.workers, job.plan.workers > slots,
            job.seconds, prediction.step_seconds * slower,
            one.seconds / job.seconds, one_simulated / (prediction.step_seconds * slower),
            run.trace.bubble_fraction, prediction.trace.bubble_fraction,
            _exposed(run.trace, job.seconds), _exposed(prediction.trace, prediction.step_seconds * slower),
            statistics.median(job.drifts), one.seconds / min(job.plan.workers, slots), prediction.memory_bytes,
        ))  # fmt: skip
    return Comparison(calibration.machine, rows, [job.run for job in jobs], [job.prediction for job in jobs])


def predicted(experiment: Experiment, plan: Plan, cluster: Cluster) -> Prediction:
    """What a plan of an experiment would do on a cluster."""
    with blamed(experiment.file):
        return simulate(
            experiment.build, plan, cluster, experiment.batch_size, example=experiment.example, loss=experiment.loss,
            optimizer=sgd,
        )  # fmt: skip


@dataclass
class _Job:
    """A plan of an experiment: what is predicted, and what is measured in each round."""

    experiment: Experiment
    plan: Plan
    device: str
    prediction: Prediction
    runs: list[Run] = field(default_factory=list)
    drifts: list[float] = field(default_factory=list)

    def measure(self, drift_now: float) -> None:
        steps = max(LEAST_STEPS, int(RUN_SECONDS / self.prediction.step_seconds))
        with blamed(self.experiment.file):
            self.runs.append(train(
                self.experiment.build, self.experiment.train_set, self.plan, batch_size=self.experiment.batch_size,
                steps=min(self.experiment.steps, steps), drop_last=True, loss=self.experiment.loss, optimizer=sgd,
                device=self.device, progress=False,
            ))  # fmt: skip
        self.drifts.append(drift_now)

    @property
    def run(self) -> Run:
        """The median run."""
        return sorted(self.runs, key=_step_seconds)[len(self.runs) // 2]

    @property
    def seconds(self) -> float:
        """Of a step, in that run."""
        return _step_seconds(self.run)


def _step_seconds(run: Run) -> float:
    """The median of the steps that are timed."""
    return statistics.median(run.step_times[WARM_UP:])


def _exposed(trace: Trace, seconds: float) -> float:
    """Exposed communication of a step of `seconds`: its share is that of the trace's steps."""
    return trace.exposed_communication / trace.step_seconds * seconds


def _mean_absolute(errors: Iterable[float]) -> float | None:
    errors = [abs(error) for error in errors]
    return statistics.mean(errors) if errors else None
