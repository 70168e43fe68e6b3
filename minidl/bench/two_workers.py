"""What parallel training costs and gains on this machine: two workers against one, and the pieces that decide it."""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from minidl import data, models, nn, optim, tensor
from minidl.bench.host import blas, unrestricted_blas
from minidl.parallel import Plan, Run, launch, train
from minidl.parallel.group import ProcessGroup
from minidl.trace import COMPUTE

MODEL, BATCH_SIZE = "mlp-784", 256
ALL_REDUCE_BYTES = 1 << 20
BUCKET_MB = 25  # one bucket: a core that computes and communicates has nothing to overlap
SHARDED, WHOLE = (Plan(data=2, bucket_mb=BUCKET_MB, sharding=sharding) for sharding in ("optimizer", "none"))
STEPS = 40  # of a training run


@dataclass(frozen=True)
class Case:
    """Two workers under `plan` against one, in the training of a model by SGD; wanted: how much faster, at least."""

    plan: Plan
    momentum: float = 0.0
    build: Callable = models.builder(MODEL)
    dataset: Callable[[], object] = partial(data.synthetic, 8 * BATCH_SIZE)
    batch_size: int = BATCH_SIZE
    steps: int = STEPS
    wanted: float = 1.6


def _gpt(mesh):
    return models.gpt(layers=4, hidden=256, heads=8, vocabulary=256, sequence=128, mesh=mesh)


def _sentences() -> data.ArrayDataset:
    text = np.random.default_rng(0).integers(0, 256, (64, 129))
    return data.ArrayDataset(text[:, :-1], text[:, 1:])


GPT = Case(Plan(tensor=2), build=_gpt, dataset=_sentences, batch_size=16, steps=10, wanted=1.5)
CNN = Case(
    Plan(tensor=2),
    build=models.builder("cifar-cnn", split="space"),
    dataset=partial(data.synthetic, 512, (3, 32, 32)),
    batch_size=128,
    steps=16,
    wanted=1.5,
)
COMPARED = {  # by what two workers do
    "SGD": Case(SHARDED),
    "SGD with momentum": Case(SHARDED, 0.9),
    "SGD, unsharded": Case(WHOLE),
    "GPT, 4 layers of 256, tensor=2": GPT,
    "the same, sequence parallel": replace(GPT, plan=Plan(tensor=2, sequence_parallel=True)),
    "CIFAR CNN, split by space": CNN,
}
BLOCKS, CALLS = 50, 20  # a block is CALLS calls timed together, of each kind in turn
BARRIERS = 200  # in a block
TARGETS = {
    "speedup": {what: case.wanted for what, case in COMPARED.items()},
    "all_reduce": 1.6,
    "trace": 0.02,
}  # at least, at most, at most


@dataclass(frozen=True)
class Speedup:
    """Median step of one worker and of two; ratio: median of one / two over the rounds. what: of COMPARED."""

    what: str
    one_worker_seconds: float
    two_workers_seconds: float
    ratio: float


@dataclass(frozen=True)
class Collectives:
    """Two ranks, medians. ratio: all-reduce to memcpy, each of ALL_REDUCE_BYTES on both ranks at once."""

    all_reduce_seconds: float
    memcpy_seconds: float
    ratio: float
    barrier_seconds: float


@dataclass(frozen=True)
class TraceCost:
    """What the recording of events takes of a step of two workers."""

    model: str
    events_per_step: float
    event_seconds: float
    step_seconds: float

    @property
    def share(self) -> float:
        return self.events_per_step * self.event_seconds / self.step_seconds


@dataclass(frozen=True)
class Results:
    """All that `measure` found. blas: of a worker, as `host.blas` describes it. speedups: as COMPARED has them."""

    blas: list[dict[str, object]]
    speedups: list[Speedup]
    collectives: Collectives
    traces: list[TraceCost]


def measure(rounds: int = 5, progress: Callable[[str], None] = lambda what: None) -> Results:
    """Run everything `rounds` times, one worker and two in turn. progress: told what is about to run, see `parts`."""
    with unrestricted_blas():
        digits, _ = data.digits()
        steps: dict[str, list[tuple[float, float]]] = {what: [] for what in COMPARED}
        blocks: list[list[float]] = []
        for _ in range(rounds):
            for what, case in COMPARED.items():
                progress("one worker")
                one = _train(replace(case, plan=Plan()))
                progress("two workers")
                two = _train(case)
                steps[what].append((one.step_seconds, two.step_seconds))
            progress("all-reduce, memcpy, barrier")
            ranks = launch(_time_collectives, 2)
            blocks += np.maximum(*ranks).tolist()  # the slower rank's time
        progress("trace")
        traces = []
        for model, samples in ((MODEL, data.synthetic(8 * BATCH_SIZE)), ("mlp-digits", digits)):
            options = {"plan": Plan(data=2), "dataset": lambda samples=samples: samples}
            run = _train(replace(COMPARED["SGD, unsharded"], build=models.builder(model), **options))
            events = len(run.trace.events) / len(run.trace.steps()) / run.plan.workers
            recording = statistics.median(np.ravel(launch(_time_recording, 2, args=(model, samples))))
            traces.append(TraceCost(model, events, recording, run.step_seconds))
        (libraries,) = launch(lambda group: blas(), 1)
    all_reduce, memcpy, barrier = zip(*blocks, strict=True)
    return Results(
        libraries,
        [
            Speedup(
                what,
                *(statistics.median(side) for side in zip(*pairs, strict=True)),
                statistics.median(one / two for one, two in pairs),
            )
            for what, pairs in steps.items()
        ],
        Collectives(
            statistics.median(all_reduce),
            statistics.median(memcpy),
            statistics.median(a / m for a, m in zip(all_reduce, memcpy, strict=True)),
            statistics.median(barrier),
        ),
        traces,
    )


def parts(rounds: int) -> int:
    """How often `measure` calls its `progress`."""
    return (2 * len(COMPARED) + 1) * rounds + 1


def _train(case: Case) -> Run:
    return train(
        case.build, case.dataset(), case.plan, optimizer=lambda p: optim.SGD(p, lr=0.01, momentum=case.momentum),
        loss=nn.CrossEntropyLoss(), batch_size=case.batch_size, steps=case.steps, progress=False,
    )  # fmt: skip


def _time_collectives(group: ProcessGroup) -> np.ndarray:
    """Seconds of a call of an all-reduce in place, of a memcpy, and of a barrier: (blocks, 3)."""
    reduced, source, target = (group.empty((ALL_REDUCE_BYTES // 4,)) for _ in range(3))
    for x in (reduced, source, target):
        x.data[...] = 0
    kinds = (
        (lambda: group.all_reduce(reduced), CALLS),
        (lambda: np.copyto(target.data, source.data), CALLS),
        (group.barrier, BARRIERS),
    )
    blocks = [[_block(group, call, calls) for call, calls in kinds] for _ in range(BLOCKS + 1)]
    return np.array(blocks[1:])  # in the first the pages are new


def _block(group: ProcessGroup, call: Callable[[], object], calls: int) -> float:
    group.barrier()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _time_recording(group: ProcessGroup, model: str, samples: data.Dataset) -> list[float]:
    """Seconds of each recording of an event as a trace holds them: two readings of the clock, and a tuple that is kept.

    Each is recorded after a block of the model has run, as in a step: caches then hold something else.
    """
    chain, events, seconds = models.builder(model)(), [], []
    clock = min(timeit.repeat(time.perf_counter, number=1000)) / 1000
    images, _ = samples[np.arange(BATCH_SIZE // 2)]

    def record(name: str, start: float, end: float, step: int) -> None:
        events.append((group.rank, COMPUTE, name, start, end, step, None))

    for step in range(STEPS):
        x = tensor(images)
        for block in chain:
            start = time.perf_counter()
            x = block(x)
            end = time.perf_counter()
            record("Forward", start, end, step)
            seconds.append(time.perf_counter() - end + clock)  # the difference holds one reading
    return seconds
