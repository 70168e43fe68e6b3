"""The methods of training in parallel: what each is, what it costs, when it pays, and its step, measured and simulated.

All of them are fields of `Plan`, or ways in which a model shares its layers, and go through the same `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from minidl import data, models
from minidl.data import Dataset
from minidl.nn import Sequential
from minidl.parallel import Mesh, Plan
from minidl.parallel.profile import build_on_meta, loss_of
from minidl.trace import Trace
from simulator.compare import Comparison, predicted
from simulator.experiments import Experiment
from simulator.hardware import Cluster
from simulator.predict import Prediction
from simulator.traffic import Traffic, traffic

STEPS = 40  # of each run, at most
SEQUENCE = 128  # tokens of a sample of the transformers
DEEP = partial(models.gpt, 8, 128, 8, 256, SEQUENCE)
MIXTURE = partial(models.moe_gpt, 4, 128, 8, 256, SEQUENCE, experts=8)


@dataclass(frozen=True)
class Method:
    """A way of training in parallel, and an example of it.

    what: it is, and pays: when, a phrase each. source: the paper. build: of the model, with a mesh. data: that it is
    trained on. samples: of a global batch, for each worker. plan: that for so many workers.
    """

    name: str
    what: str
    source: str
    pays: str
    build: Callable[[Mesh | None], Sequential]
    data: Callable[[], Dataset]
    samples: int
    plan: Callable[[int], Plan]

    def experiment(self, workers: int, steps: int = STEPS) -> Experiment:
        """The training under its plan, for a comparison. ValueError where the model cannot be spread over so many."""
        loss, batch_size = loss_of(build_on_meta(self.build, Plan().mesh())), self.samples * workers
        made = Experiment(
            self.name, self.build, (self.plan(workers),), steps, batch_size, self.data(), loss
        )  # fmt: skip
        made.check(made.plans[0])
        return made


@dataclass(frozen=True)
class Row:
    """A method on a cluster. Names are those of the JSON file.

    sent: see `Traffic`. memory_bytes: of the fullest worker, and of one worker alone that trains on the same batches.
    Both, and the simulated step, are predicted; measured_step_seconds and error are None where nothing was measured.
    """

    name: str
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
            raise ValueError(f"unknown method {name!r}: there are {', '.join(known)}")
        if names.count(name) > 1:
            raise ValueError(f"the method {name} is given twice")
    return [known[name] for name in names] if names else list(METHODS)


def compared(methods: Sequence[Method], comparison: Comparison, cluster: Cluster) -> list[Row]:
    """A row for each method, of a comparison of their experiments in the same order."""
    rows = []
    for method, row, prediction in zip(methods, comparison.rows, comparison.predictions, strict=True):
        measured = row.simulated_step_seconds, row.measured_step_seconds, row.error
        rows.append(_row(method, prediction, cluster, *measured))
    return rows


def simulated(methods: Sequence[Method], workers: int, cluster: Cluster) -> tuple[list[Row], list[Trace]]:
    """A row for each method on a cluster, where nothing is measured, and its trace."""
    experiments = [method.experiment(workers) for method in methods]
    predictions = [predicted(experiment, experiment.plans[0], cluster) for experiment in experiments]
    rows = [
        _row(method, prediction, cluster, prediction.step_seconds)
        for method, prediction in zip(methods, predictions, strict=True)
    ]
    return rows, [prediction.trace for prediction in predictions]


def _row(method: Method, prediction: Prediction, cluster: Cluster, *seconds: float) -> Row:
    plan = prediction.plan
    alone = predicted(method.experiment(plan.workers), Plan(), cluster)
    return Row(
        method.name, method.what, method.source, method.pays, str(plan), plan.workers,
        traffic(prediction.program, cluster.compute.scale), prediction.memory_bytes, alone.memory_bytes, *seconds,
    )  # fmt: skip


@cache
def _digits() -> Dataset:
    return data.digits()[0]


@cache
def _images() -> Dataset:
    return data.synthetic_images("cifar10", train=512)[0]


@cache
def _text() -> Dataset:
    return data.TextDataset(np.frombuffer(data.coriolanus().encode("ascii"), np.uint8), SEQUENCE)


def _perceptron(split: str = "column-row"):
    return partial(_built, partial(models.mlp, (64, 512, 512, 512, 512, 512, 16), split=split))


def _built(model: Callable[..., Sequential], mesh: Mesh | None = None) -> Sequential:
    return model(mesh=mesh)


PERCEPTRON = {"data": _digits, "samples": 128}
TRANSFORMER = {"build": partial(_built, DEEP), "data": _text, "samples": 4}

METHODS = (
    Method(
        "data", "each worker has the whole model and its share of the batch; gradients are summed in buckets",
        "Li et al. 2020", "the model fits into a worker, and its gradients are small beside the work on a batch",
        _perceptron(), plan=lambda n: Plan(data=n), **PERCEPTRON,
    ),
    Method(
        "1f1b", "each worker has a stage of the model; one forward, one backward in turn",
        "Narayanan et al. 2019", "workers are many or links slow: only activations at the stages' borders are sent",
        plan=lambda n: Plan(pipeline=n, micro_batches=2 * n), **TRANSFORMER,
    ),
    Method(
        "columns and rows", "two layers are split by columns, then rows, so that between them nothing is sent",
        "Shoeybi et al. 2019", "a layer is too large for one worker, and links are as fast as inside a node",
        _perceptron(), plan=lambda n: Plan(tensor=n), **PERCEPTRON,
    ),
)  # fmt: skip
