"""calibrate(): measures this machine into a Cluster, once.

What is measured: matrix products over sizes, every kernel over the bytes it moves, the cost of Python after a call and
around an instruction, collectives and messages between two workers, and how much busy cores slow one another down. What
is not: any parallel training run. Nothing is fitted to the step of a model.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from minidl import data, files, json_files, nn, optim
from minidl.arena import memory_bytes
from minidl.bench.machine import BLAS_VARIABLES, machine
from minidl.caches import cache_folder
from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan, forkserver, launch, train
from minidl.parallel.profile import ChainProfile
from simulator import kernel_probes, probes, schema
from simulator.compute import Convolution, Measured, timed_as
from simulator.hardware import Cluster, Processors
from simulator.network import SharedMemory
from simulator.predict import simulate

VERSION = 16  # of the cache's form
BUSY = 1.3  # by how much a probe may vary on a machine that counts as quiet
WAS_BUSY = """this machine was busy as it was calibrated, and predictions may be far off:
`python -m simulator calibrate --refresh` measures it again"""

SECONDS = schema.rising(schema.pair(schema.NOT_NEGATIVE, schema.POSITIVE))  # by bytes
FILE = schema.table({
    "machine": schema.table_of(schema.anything),
    "compute": schema.table({
        "gemm_sizes": schema.rising(schema.COUNT),
        "gemm_seconds": schema.list_of(schema.POSITIVE),
        "kernels": schema.table_of(SECONDS, needed=("add",)),
        "contention": schema.rising(schema.pair(schema.NOT_NEGATIVE, schema.FACTOR)),
        "matmul_contention": schema.FACTOR,
        "python": SECONDS,
        "instruction_seconds": schema.NOT_NEGATIVE,
    }),
    "network": schema.table({
        "collectives": schema.table_of(SECONDS, needed=(*probes.COLLECTIVES, "alone")),
        "send": SECONDS, "receive": SECONDS,
    }),
    "memory_bytes": schema.POSITIVE, "peak_flops": schema.POSITIVE, "oversubscription": schema.FACTOR,
    "turn_seconds": schema.NOT_NEGATIVE, "probe_seconds": schema.pair(schema.POSITIVE, schema.POSITIVE),
    "quiet": schema.boolean, "version": schema.COUNT,
})  # fmt: skip


@dataclass(frozen=True)
class Effort:
    """How thoroughly this machine is measured; by default so that the calibration is worth keeping.

    contention: rounds, before each phase, in which a core computes alone and then all do. rounds: through matrix
    products and kernels. iterations: with two ranks on each core. launches: in which workers communicate. kernels: that
    are timed, by the names of `compute.timed_as`, None for all.
    """

    contention: int = 2
    rounds: int = 4
    iterations: int = 25
    launches: int = 2
    kernels: Collection[str] | None = None


FULL = Effort()


def quick(profiles: Iterable[ChainProfile]) -> Effort:
    """The effort for a calibration that is used once, to simulate what has these profiles: about half the time."""
    return Effort(contention=1, rounds=3, iterations=11, launches=1, kernels=set().union(*map(called, profiles)))


def called(profile: ChainProfile) -> set[str]:
    """The kernels that a training step calls, by the names of `timed_as`; not those that move nothing."""
    blocks = profile.blocks
    calls = [call for b in blocks for call in (*b.forward, *b.backward, *b.accumulate, *b.update)]
    return {timed_as(c) for c in (*calls, *profile.loss) if isinstance(c, KernelCall) and c.bytes_read}


@dataclass(frozen=True)
class Calibration:
    """What was measured, as it is cached.

    oversubscription, turn_seconds: see `Processors`. probe_seconds: of the speed probe then, on one core and on all at
    once, to tell how the machine drifts. quiet: nothing else kept the machine busy; otherwise who uses it is warned.
    """

    machine: dict[str, object]
    compute: dict[str, object]
    network: dict[str, object]
    memory_bytes: float
    peak_flops: float
    oversubscription: float
    turn_seconds: float
    probe_seconds: list[float]
    quiet: bool = True
    version: int = VERSION

    def cluster(self) -> Cluster:
        """The machine as a Cluster."""
        cores = self.machine["cores"]
        return Cluster(
            "this machine", cores, Measured(**self.compute), SharedMemory(**self.network),
            self.memory_bytes, self.peak_flops, Processors(cores, self.oversubscription, self.turn_seconds),
        )  # fmt: skip


def calibrate(refresh: bool = False, progress: Callable[[str], None] | None = None) -> Cluster:
    """This machine as a Cluster: from the cache, or measured, which takes about half a minute, and cached.

    refresh: measure again. progress: told what is being measured.
    """
    return calibration(refresh, progress).cluster()


def calibration(
    refresh: bool = False, progress: Callable[[str], None] | None = None, effort: Effort = FULL
) -> Calibration:
    """As `calibrate`, but all that was measured. A cache that cannot be used is replaced, with a warning.

    effort: of what is measured if there is none in the cache; one of less than FULL is not kept.
    """
    path = cache_path()
    if path and not refresh:
        try:
            if kept := _read(path):
                return _warned(kept)
        except (OSError, ValueError) as error:
            warnings.warn(f"the calibration cache {path} cannot be used ({error}): measuring again", stacklevel=2)
    found = measure(progress or (lambda what: None), effort)
    if effort != FULL:
        return found
    if path is None:
        warnings.warn("the calibration is not kept: there is no home, name a folder in MINIDL_CACHE", stacklevel=2)
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, json.dumps(asdict(found)))
        except OSError as error:
            warnings.warn(f"the calibration cannot be cached in {path}: {error}", stacklevel=2)
    return _warned(found)


def _warned(found: Calibration) -> Calibration:
    """The calibration, after a warning if it is not worth much."""
    if not found.quiet:
        warnings.warn(WAS_BUSY, stacklevel=3)
    return found


def _read(path: Path) -> Calibration | None:
    """The calibration in a file; None without one of this machine and version. ValueError if it is damaged; OSError."""
    try:
        table = json_files.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if isinstance(table, dict) and isinstance(table.get("version"), int) and table["version"] != VERSION:
        return None  # of a form that was another
    FILE("", table)
    sizes, seconds = table["compute"]["gemm_sizes"], table["compute"]["gemm_seconds"]
    if len(sizes) < 2 or len(set(sizes)) < len(sizes) or len(seconds) != len(sizes) ** 3:
        raise ValueError(f"{len(seconds)} gemm_seconds do not fit the gemm_sizes {sizes}")
    return Calibration(**table) if table["machine"] == identity() else None


def drift(calibration: Calibration) -> tuple[float, float]:
    """How much slower this machine is now than when it was calibrated: a fixed probe's time over its time then.

    On one core, and on all at once, whose time may vary where that of one does not.
    """
    now = _speed(launch(probes.speed_probe, calibration.machine["cores"]))
    alone, together = (t / then for t, then in zip(now, calibration.probe_seconds, strict=True))
    return alone, together


def _quiet(times: Iterable[float]) -> bool:
    """Whether a probe's times are alike, but for the slowest: nothing that is kept is of one moment alone."""
    *usual, _ = sorted(times)
    return usual[-1] < BUSY * usual[0]


def _speed(ranks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Seconds alone, and together, of what the ranks return from `speed_probe`."""
    return ranks[0][0], statistics.mean(together for _, together in ranks)


def measure(progress: Callable[[str], None], effort: Effort = FULL) -> Calibration:
    """Run all probes on this machine. progress: told what is being measured."""
    with forkserver():
        return _measure(progress, effort)


def _measure(progress: Callable[[str], None], effort: Effort) -> Calibration:
    machine = identity()
    cores = machine["cores"]
    speeds: list[tuple[float, float]] = []  # before each phase; what lasts a second decides nothing
    ratios: list[list[float]] = []

    def begin(phase: str) -> None:
        progress(phase)
        contended, speed = zip(*launch(probes.contention_and_speed, cores, (effort.contention,)), strict=True)
        ratios.extend(itertools.chain(*contended))
        speeds.append(_speed(speed))

    begin("compiled kernels")
    launch(kernel_probes.compile_kernels, min(2, cores), (effort.kernels,))
    begin("matrix products and kernels")
    ((gemm, kernels, python),) = launch(kernel_probes.products_and_kernels, 1, (effort.rounds, effort.kernels))
    begin("busy cores")
    oversubscription, turn_seconds = _oversubscription(cores, effort.iterations)
    begin("collectives and messages")
    launches = [launch(probes.communication, 2) for _ in range(effort.launches)]  # where workers land decides the times
    base = Measured(probes.GEMM_SIZES, gemm, {}, [], 1.0, [], 0.0)
    kernels = {name: _beyond_product(base, points) for name, points in kernels.items()}
    network: dict[str, object] = {name: _points(launches, name, (0, 1)) for name in probes.COLLECTIVES}
    network["alone"] = [[64, launch(probes.alone_seconds, 1)[0]]]
    begin("instructions")
    *slower, product_slower = np.maximum(1.0, np.median(ratios, axis=0)).tolist()
    compute = {
        "gemm_sizes": list(probes.GEMM_SIZES),
        "gemm_seconds": gemm,
        "kernels": kernels,
        "contention": [list(pair) for pair in zip(probes.CONTENTION_BYTES, slower, strict=True)],
        "matmul_contention": product_slower,
        "python": [list(point) for point in python],
        "instruction_seconds": 0.0,
    }
    alone, together = zip(*speeds, strict=True)
    largest = probes.GEMM_SIZES[-1]
    found = Calibration(
        machine, compute,
        {"collectives": network, "send": _points(launches, "send", (0,)), "receive": _points(launches, "send", (1,))},
        memory_bytes() / cores, 2 * largest**3 / gemm[-1],
        oversubscription, turn_seconds, [statistics.median(alone), statistics.median(together)],
        quiet=_quiet(alone),
    )  # fmt: skip
    return replace(found, compute=compute | {"instruction_seconds": _instruction_seconds(found)})


def _oversubscription(cores: int, iterations: int) -> tuple[float, float]:
    """`Processors.oversubscription` and `Processors.turn_seconds`, from two ranks on each core against one."""
    (apart, _), (few, more) = (launch(probes.iteration_seconds, n, (iterations,))[0] for n in (cores, 2 * cores))
    turn = max(0.0, (more - few) / probes.MORE_COLLECTIVES)
    return max(1.0, (few - turn) / 2 / apart), turn


def _instruction_seconds(found: Calibration) -> float:
    """What a step of a tiny model, on one worker, takes beyond its kernels, for each of its instructions."""
    digits, _ = data.digits()
    plan, settings = Plan(micro_batches=16), {"optimizer": _sgd, "loss": nn.CrossEntropyLoss()}
    runs = [train(_tiny, digits, plan, batch_size=64, steps=60, progress=False, **settings) for _ in range(2)]
    measured = min(run.step_seconds for run in runs)  # other programs can only make it slower
    prediction = simulate(_tiny, plan, found.cluster(), 64, example=digits[np.arange(1)], **settings)
    return max(0.0, (measured - prediction.step_seconds) / len(prediction.program[0].step))


def _tiny(mesh):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def _beyond_product(base: Measured, points) -> list[list[float]]:
    """A kernel's points; for a convolution the time it takes beyond its matrix products, by its `rest`."""
    if not isinstance(points[0][0], Convolution):
        return [[moved, seconds] for moved, seconds in points]
    by_rest: dict[int, list[float]] = {}
    for c, seconds in points:
        by_rest.setdefault(c.rest, []).append(max(seconds - base.matmul_seconds(*c.product), 0.02 * seconds))
    return [[rest, statistics.median(times)] for rest, times in sorted(by_rest.items())]


def _sgd(parameters):
    return optim.SGD(parameters, lr=1e-3, momentum=0.9)


def _points(launches, name: str, ranks: tuple[int, ...]) -> list[list[float]]:
    """(bytes, seconds) of an action: the mean over the ranks and the launches."""
    columns = [sides[rank][name] for sides in launches for rank in ranks]
    return [[points[0][0], statistics.mean(t for _, t in points)] for points in zip(*columns, strict=True)]


def identity() -> dict[str, object]:
    """What a calibration is valid for: processor, cores that may be used, Python and NumPy, what BLAS is held to."""
    here = machine()
    held = {name: os.environ[name] for name in BLAS_VARIABLES if name in os.environ}
    return {key: here[key] for key in ("processor", "cores", "python", "numpy")} | {"blas": held}


def cache_path() -> Path | None:
    """Where the calibration is kept: $MINIDL_CACHE, else the user's cache folder; None without either."""
    folder = cache_folder()
    return folder and folder / "calibration.json"
