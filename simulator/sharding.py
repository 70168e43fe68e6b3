"""What replicas hold if they share nothing, the optimizer, gradients or parameters: by formula, simulated, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minidl import models, nn, optim
from minidl.data import ArrayDataset
from minidl.parallel import Plan, forkserver, train
from minidl.parallel.memory import Memory
from minidl.parallel.plan import SHARDINGS
from minidl.parallel.slots import TURNS
from simulator.hardware import Cluster
from simulator.predict import simulate
from simulator.prediction import Prediction

MODEL = "gpt3-6.7b"  # on a cluster
LAYERS, HIDDEN, HEADS, VOCABULARY, SEQUENCE = 8, 128, 4, 64, 32  # of what is trained here
SAMPLES = 4  # a worker's, of a step, in as many micro-batches as MICRO_BATCHES
MICRO_BATCHES, BUCKET_MB, STEPS = 2, 0.5, 12
ADAM = 8  # bytes of two moments of a parameter; Kingma and Ba 2015
MASTER = 4  # bytes of its float32 copy where training is in mixed precision; Micikevicius et al. 2018, section 3.1


@dataclass(frozen=True)
class Row:
    """One sharding. Names are those of the JSON file.

    formula: bytes of parameters, gradients and optimizer, see `formula`. simulated, measured: what the fullest worker
    holds when it holds most; of what is not measured None. seconds: of a step.
    """

    sharding: str
    workers: int
    formula: Memory
    simulated: Memory
    simulated_step_seconds: float
    measured: Memory | None = None
    measured_step_seconds: float | None = None

    @property
    def simulated_error(self) -> float:
        """Of what is held beside activations, relative to the formula."""
        return error(self.simulated, self.formula)

    @property
    def measured_error(self) -> float | None:
        return None if self.measured is None else error(self.measured, self.formula)


def states(memory: Memory) -> float:
    """Bytes of what a model has whatever the batch is: parameters, gradients, optimizer."""
    return memory.parameters + memory.gradients + memory.optimizer


def model_name(measured: bool) -> str:
    """What is trained, or simulated alone."""
    return f"a GPT of {LAYERS} layers of {HIDDEN}" if measured else MODEL


def error(memory: Memory, expected: Memory) -> float:
    return states(memory) / states(expected) - 1


def formula(sharding: str, workers: int, parameters: int, largest: int, scale: float = 1.0) -> Memory:
    """What a replica holds of a model of so many parameters under Adam (Rajbhandari et al. 2020, section 5, figure 1).

    With their 16-bit training (scale 0.5) that is 2, 2 and 12 bytes a parameter; in float32 4, 4 and 8. What is
    sharded is divided by the workers; beside it two buckets at a time are whole, of which the paper does not speak.
    largest: parameters of the largest bucket. scale: bytes of a number relative to float32.
    """
    number, stage = 4 * scale, SHARDINGS.index(sharding)
    kept = ADAM + (MASTER if scale < 1 else 0)
    shares = [workers if stage >= first else 1 for first in (3, 2, 1)]
    slots = [TURNS * largest * number * (share > 1) for share in shares[:2]]
    bytes_of = [each * parameters / share for each, share in zip((number, number, kept), shares, strict=True)]
    return Memory(bytes_of[0] + slots[0], bytes_of[1] + slots[1], bytes_of[2], 0)


def here(mesh=None) -> nn.Sequential:
    """The model that is trained on this machine."""
    return models.gpt(LAYERS, HIDDEN, HEADS, VOCABULARY, SEQUENCE, mesh)


def sharding(
    workers: int,
    cluster: Cluster,
    measured: bool,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Row]:
    """A row for each sharding, simulated on the cluster and, if `measured`, trained here.

    progress: told what is run, how many are done, and of how many.
    """
    rows = []
    with forkserver():
        for done, name in enumerate(SHARDINGS):
            progress(f"sharding={name}", done, len(SHARDINGS))
            rows.append(_trained(name, workers, cluster) if measured else _planned(name, workers, cluster))
    return rows


def _planned(name: str, workers: int, cluster: Cluster) -> Row:
    """The model of the catalog, a sample at a time, in whose chain a block is a bucket."""
    plan = Plan(data=workers, micro_batches=MICRO_BATCHES, sharding=name, precision=cluster.usual_precision)
    return _row(name, simulate(models.builder(MODEL), plan, cluster, workers * MICRO_BATCHES))


def _trained(name: str, workers: int, cluster: Cluster) -> Row:
    plan = Plan(data=workers, micro_batches=MICRO_BATCHES, sharding=name, bucket_mb=BUCKET_MB)
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=(SAMPLES * workers * STEPS, SEQUENCE + 1))
    text, settings = (
        ArrayDataset(tokens[:, :-1], tokens[:, 1:]),
        {"loss": nn.CrossEntropyLoss(), "optimizer": optim.Adam},
    )
    prediction = simulate(here, plan, cluster, SAMPLES * workers, example=text[np.arange(1)], **settings)
    run = train(here, text, plan, batch_size=SAMPLES * workers, steps=STEPS, progress=False, **settings)
    return _row(name, prediction, run.memory, run.trace.step_seconds)


def _row(name: str, prediction: Prediction, measured: Memory | None = None, seconds: float | None = None) -> Row:
    costs, workers = prediction.program.costs, prediction.plan.workers
    counts = [block.parameter_count for block in costs.profile.blocks]
    largest = max(sum(counts[slice(*run)]) for run in costs.layout.buckets[0])
    expected = formula(name, workers, sum(counts), largest, prediction.plan.scale)
    return Row(name, workers, expected, prediction.memory[0], prediction.step_seconds, measured, seconds)
