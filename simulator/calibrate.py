"""calibrate(): measures this machine into a Cluster, once.

What is measured: matrix products over sizes, every kernel over the bytes it moves, the cost of Python after a call and
around an instruction, collectives and messages between two workers, and how much busy cores slow one another down. What
is not: any parallel training run. The one constant that is fitted, `training_factor`, is the ratio of measured to
predicted step time of two one-worker runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minidl import data, models, nn, optim
from minidl.bench.machine import BLAS_VARIABLES, machine
from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan, launch, train
from simulator import probes
from simulator.compute import Convolution, Measured
from simulator.hardware import Cluster, Processors
from simulator.network import SharedMemory
from simulator.predict import simulate

VERSION = 8  # of the cache's form
BUSY = 1.3  # by how much a probe may vary during a calibration that is kept


@dataclass(frozen=True)
class Calibration:
    """What was measured, as it is cached.

    sharing: see `Processors`. probe_seconds: of the speed probe then, to tell how the machine drifts. quiet: nothing
    else kept the machine busy; otherwise the calibration is used but not kept.
    """

    machine: dict[str, object]
    compute: dict[str, object]
    network: dict[str, object]
    memory_bytes: float
    peak_flops: float
    sharing: float
    probe_seconds: float
    quiet: bool = True
    version: int = VERSION

    def cluster(self, training_factor: float | None = None) -> Cluster:
        """The machine as a Cluster; `training_factor=1` leaves the fitted constant out."""
        compute = Measured(**self.compute)
        if training_factor is not None:
            compute = Measured(**self.compute | {"training_factor": training_factor})
        cores = self.machine["cores"]
        return Cluster(
            "this machine", cores, compute, SharedMemory(**self.network), self.memory_bytes, self.peak_flops,
            Processors(cores, self.sharing),
        )  # fmt: skip


def calibrate(refresh: bool = False, progress: Callable[[str], None] | None = None) -> Cluster:
    """This machine as a Cluster: from the cache, or measured in less than 20 seconds and cached.

    refresh: measure again. progress: told what is being measured.
    """
    return calibration(refresh, progress).cluster()


def calibration(refresh: bool = False, progress: Callable[[str], None] | None = None) -> Calibration:
    """As `calibrate`, but all that was measured. A cache that cannot be read is replaced, with a warning."""
    path = cache_path()
    if not refresh and path.exists():
        try:
            found = Calibration(**json.loads(path.read_text()))
            if found.version == VERSION and found.machine == identity():
                _try_out(found.cluster())
                return found
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            warnings.warn(f"the calibration cache {path} cannot be used ({error}): measuring again", stacklevel=2)
    found = measure(progress or (lambda what: None))
    if not found.quiet:
        warnings.warn(
            "this machine was busy with something else: the calibration may be far off, and is used only this once",
            stacklevel=2,
        )
        return found
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(found)))
        partial.replace(path)  # at once: a reader never sees half a file
    except OSError as error:
        warnings.warn(f"the calibration cannot be cached in {path}: {error}", stacklevel=2)
        with contextlib.suppress(OSError):
            partial.unlink()
    return found


def drift(calibration: Calibration) -> float:
    """How much slower this machine is now than when it was calibrated: a fixed probe's time over its time then."""
    return launch(probes.speed_probe, 1)[0] / calibration.probe_seconds


def _try_out(cluster: Cluster) -> None:
    """Price one of each thing: raises if the calibration lacks what that takes."""
    for name in ("matmul", "add"):
        cluster.compute.price(KernelCall(name, ((1, 8, 8, 8),), "float32", 1, 1, 1))
    for ranks in ((0,), (0, 1)):
        cluster.network.collective_seconds("all_reduce", ranks, 64)
    cluster.network.send_seconds(0, 1, 64)
    cluster.network.receive_seconds(0, 1, 64)


def measure(progress: Callable[[str], None]) -> Calibration:
    """Run all probes on this machine."""
    machine = identity()
    cores = machine["cores"]
    progress("matrix products")
    (gemm,) = launch(probes.gemm_seconds, 1)
    progress("kernels and the tape")
    ((kernels, python),) = launch(probes.kernel_seconds, 1)
    progress("busy cores")
    slower, product_slower, probe_seconds = _contention(cores)
    apart, together = (statistics.median(launch(probes.iteration_seconds, n)) for n in (cores, 2 * cores))
    progress("collectives and messages")
    sides = launch(probes.communication, 2)
    base = Measured(probes.GEMM_SIZES, gemm, {}, [], 1.0, [], 0.0)
    kernels = {name: _beyond_product(base, points) for name, points in kernels.items()}
    network = {name: _mean_points(sides, name) for name in probes.COLLECTIVES}
    network["alone"] = [(64, launch(probes.alone_seconds, 1)[0])]
    compute = {
        "gemm_sizes": list(probes.GEMM_SIZES),
        "gemm_seconds": gemm,
        "kernels": kernels,
        "contention": list(zip(probes.CONTENTION_BYTES, slower, strict=True)),
        "matmul_contention": product_slower,
        "python": python,
        "instruction_seconds": 0.0,
    }
    largest = probes.GEMM_SIZES[-1]
    unfitted = Calibration(
        machine, compute, {"collectives": network, "send": sides[0]["send"], "receive": sides[1]["send"]},
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / cores, 2 * largest**3 / gemm[-1],
        max(1.0, together / 2 / apart), statistics.median(probe_seconds),
        quiet=max(probe_seconds) < BUSY * min(probe_seconds),
    )  # fmt: skip
    progress("one-worker runs")
    return _fit(unfitted)


def _contention(cores: int) -> tuple[list[float], float, list[float]]:
    """How much slower kernels are while all cores are busy: by bytes, and a matrix product; and the probe's seconds.

    Other programs can only make a ratio look larger, or smaller while the core is measured alone: the median of three.
    """
    ratios, probe_seconds = [], []
    for _ in range(3):
        ((alone, product_alone, probe),) = launch(probes.contention, 1)
        together = launch(probes.contention, cores)
        mean = [sum(worker[0][i] for worker in together) / cores for i in range(len(alone))]
        product = sum(worker[1] for worker in together) / cores
        pairs = zip((*mean, product), (*alone, product_alone), strict=True)
        ratios.append([max(1.0, slow / fast) for slow, fast in pairs])
        probe_seconds.append(probe)
    *slower, product_slower = (statistics.median(ratio) for ratio in zip(*ratios, strict=True))
    return slower, product_slower, probe_seconds


def _fit(unfitted: Calibration) -> Calibration:
    """Fit the cost of an instruction and the training factor to one-worker runs of models not in `compare`."""
    digits, _ = data.digits()
    tiny = _one_worker(unfitted, lambda mesh: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits, 64, 60, 16)
    instruction_seconds = max(0.0, (tiny.measured - tiny.predicted) / tiny.instructions)
    found = replace(unfitted, compute=unfitted.compute | {"instruction_seconds": instruction_seconds})
    ratios = []
    for name, shape, batch_size in (("mlp-784", (1, 28, 28), 64), ("cnn-32", (3, 32, 32), 16)):
        run = _one_worker(found, models.builder(name), data.synthetic(256, shape, 10), batch_size, 12, 1)
        ratios.append(run.measured / run.predicted)
    return replace(found, compute=found.compute | {"training_factor": statistics.geometric_mean(ratios)})


class _Step(NamedTuple):
    measured: float
    predicted: float
    instructions: int


def _one_worker(calibration: Calibration, build, dataset, batch_size: int, steps: int, micro_batches: int) -> _Step:
    """Seconds of a step of one worker, measured and predicted, and the number of its instructions."""
    plan, settings = Plan(micro_batches=micro_batches), {"optimizer": _sgd, "loss": nn.CrossEntropyLoss()}
    runs = [train(build, dataset, plan, batch_size=batch_size, steps=steps, **settings) for _ in range(2)]
    example = dataset[np.arange(1)]
    prediction = simulate(build, plan, calibration.cluster(), batch_size, example=example, **settings)
    measured = min(run.step_seconds for run in runs)  # other programs can only make it slower
    return _Step(measured, prediction.step_seconds, len(prediction.program[0].step))


def _beyond_product(base: Measured, points) -> list[tuple[float, float]]:
    """A kernel's points; for a convolution the time it takes beyond its matrix product, by what it copies."""
    if isinstance(points[0][0], Convolution):
        return sorted((c.copying, max(t - base.matmul_seconds(1, *c.product), 0.02 * t)) for c, t in points)
    return points


def _sgd(parameters):
    return optim.SGD(parameters, lr=1e-3, momentum=0.9)


def _mean_points(sides, name) -> list[tuple[float, float]]:
    return [(size, sum(side[name][i][1] for side in sides) / len(sides)) for i, (size, _) in enumerate(sides[0][name])]


def identity() -> dict[str, object]:
    """What a calibration is valid for: processor, cores that may be used, Python and NumPy, what BLAS is held to."""
    here = machine()
    held = {name: os.environ[name] for name in BLAS_VARIABLES if name in os.environ}
    return {key: here[key] for key in ("processor", "cores", "python", "numpy")} | {"blas": held}


def cache_path() -> Path:
    """Where the calibration is kept: $MINIDL_CACHE, else the user's cache folder."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("MINIDL_CACHE", caches / "minidl")) / "calibration.json"
