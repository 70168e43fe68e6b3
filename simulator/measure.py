"""measure(): runs the probes on this machine, or on its GPU, and makes a Calibration of what they find.

Measured are matrix products over sizes, every kernel over the bytes it moves, and the cost of Python after a call and
around an instruction; of the cores of this machine also collectives and messages between two workers, and how much busy
cores slow one another down. Kernels are timed by the clock of their thread, which stands still while other programs
have the core; of what has to be timed by that on the wall, the faster runs count. Not measured is any parallel training
run. Nothing is fitted to the step of a model.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minidl import cuda, data, nn, optim
from minidl.arena import memory_bytes
from minidl.parallel import Plan, forkserver, launch, train
from simulator.calibration import BUSY, Calibration, identity
from simulator.compute import Measured
from simulator.compute.convolution import Convolution
from simulator.compute.interpolation import Points, interpolate
from simulator.measured_devices import MEASURED_DEVICES
from simulator.predict import simulate
from simulator.probes import between_workers, busy_cores, kernel_times
from simulator.probes.sizes import Sizes
from simulator.probes.timing import undisturbed

NO_SPEED = "the emulator of a GPU has no speed to measure: device cuda needs a GPU here"


@dataclass(frozen=True)
class Effort:
    """How thoroughly this machine is measured; by default so that the calibration is worth keeping.

    contention: rounds, before each phase, in which a core computes alone and then all do. rounds: through matrix
    products and kernels. iterations: with two ranks on each core. launches: in which workers communicate. kernels: that
    are timed, by the names of `timed_as`, None for all. sizes: in which products and kernels are timed, None
    for the device's own. steps, micro_batches: of the trainings that tell what an instruction takes. A GPU is
    measured without contention, iterations and launches.
    """

    contention: int = 2
    rounds: int = 4
    iterations: int = 25
    launches: int = 2
    kernels: Collection[str] | None = None
    sizes: Sizes | None = None
    steps: int = 60
    micro_batches: int = 16


FULL = Effort()


def check_measurable(device: str, effort: Effort = FULL) -> None:
    """ValueError for the emulator, in which the usual sizes would take hours; RuntimeError if there is no GPU."""
    if effort.sizes is None and identity(device).get("gpu") == "emulated":
        raise ValueError(NO_SPEED)


def measure(progress: Callable[[str], None], effort: Effort = FULL, device: str = "cpu") -> Calibration:
    """Run all probes on this machine, or on its GPU. progress: told what is being measured."""
    check_measurable(device, effort)
    with forkserver():
        return _measure(progress, effort) if MEASURED_DEVICES[device].parallel else _measure_gpu(progress, effort)


def _measure_gpu(progress: Callable[[str], None], effort: Effort) -> Calibration:
    """The part that a GPU has of what is measured: it shares no cores, and communicates with nobody."""
    sizes = effort.sizes or MEASURED_DEVICES["cuda"].sizes
    timed = "cuda", sizes, effort.kernels
    progress("compiled kernels")
    launch(kernel_times.compile_kernels, 1, timed)
    progress("matrix products and kernels")
    ((gemm, kernels, python),) = launch(kernel_times.products_and_kernels, 1, (*timed, effort.rounds))
    progress("instructions")
    found = Calibration(
        identity("cuda"), _compute(sizes, gemm, kernels, python, [[1, 1.0]], 1.0), None, cuda.mem_get_info()[1],
        2 * sizes.gemm[-1] ** 3 / gemm[-1], oversubscription=1.0, turn_seconds=0.0, probe_seconds=None,
    )  # fmt: skip
    return _with_instructions(found, effort)


def _measure(progress: Callable[[str], None], effort: Effort) -> Calibration:
    machine = identity()
    cores, sizes = machine["cores"], effort.sizes or MEASURED_DEVICES["cpu"].sizes
    timed = "cpu", sizes, effort.kernels
    speeds: list[tuple[float, float]] = []  # before each phase; what lasts a second decides nothing
    own_speeds: list[tuple[float, float]] = []  # the same of the time for which threads ran, as kernels are timed
    ratios: list[list[float]] = []

    def begin(phase: str) -> None:
        progress(phase)
        found = launch(busy_cores.contention_and_speed, cores, (effort.contention,))
        contended, speed, own_speed = zip(*found, strict=True)
        ratios.extend(itertools.chain(*contended))
        speeds.append(speed_of(speed))
        own_speeds.append(speed_of(own_speed))

    begin("compiled kernels")
    launch(kernel_times.compile_kernels, min(2, cores), timed)
    begin("matrix products and kernels")
    ((gemm, kernels, python),) = launch(kernel_times.products_and_kernels, 1, (*timed, effort.rounds))
    begin("busy cores")
    oversubscription, turn_seconds = _oversubscription(cores, effort.iterations)
    begin("collectives and messages")
    # Several, as it decides the times on which cores the workers come to run.
    launches = [launch(between_workers.communication, 2) for _ in range(effort.launches)]
    network: dict[str, object] = {name: _points(launches, name, (0, 1)) for name in between_workers.COLLECTIVES}
    network["alone"] = [[64, launch(between_workers.alone_seconds, 1)[0]]]
    layers = {
        name: _with_python(_points(launches, f"layers: {name}", (0, 1)), python)
        for name in (*between_workers.IN_LAYERS, *between_workers.SIDES)
    }
    begin("instructions")
    *slower, product_slower = np.maximum(1.0, np.median(ratios, axis=0)).tolist()
    contention = [list(pair) for pair in zip(busy_cores.CONTENTION_BYTES, slower, strict=True)]
    alone, _ = zip(*speeds, strict=True)
    found = Calibration(
        machine, _compute(sizes, gemm, kernels, python, contention, product_slower),
        {"collectives": network, "layers": layers} | _sides(launches),
        memory_bytes() / cores, 2 * sizes.gemm[-1] ** 3 / gemm[-1],
        oversubscription, turn_seconds, [statistics.median(times) for times in zip(*own_speeds, strict=True)],
        quiet=is_quiet(alone),
    )  # fmt: skip
    return _with_instructions(found, effort)


def _compute(sizes: Sizes, gemm, kernels, python, contention, matmul_contention: float) -> dict[str, object]:
    """`Calibration.compute` of what kernel_times.py has found, before instructions are timed."""
    base = Measured(sizes.gemm, gemm, {}, [], 1.0, [], 0.0)
    return {
        "gemm_sizes": list(sizes.gemm),
        "gemm_seconds": gemm,
        "kernels": {name: _beyond_product(base, points) for name, points in kernels.items()},
        "contention": contention,
        "matmul_contention": matmul_contention,
        "python": [list(point) for point in python],
        "instruction_seconds": 0.0,
    }


def _oversubscription(cores: int, iterations: int) -> tuple[float, float]:
    """`Processors.oversubscription` and `Processors.turn_seconds`, from two ranks on each core against one."""
    (apart, _), (few, more) = (launch(busy_cores.iteration_seconds, n, (iterations,))[0] for n in (cores, 2 * cores))
    turn = max(0.0, (more - few) / busy_cores.MORE_COLLECTIVES)
    return max(1.0, (few - turn) / 2 / apart), turn


def _with_instructions(found: Calibration, effort: Effort) -> Calibration:
    """It, with what a step of a tiny model, on one worker, takes beyond its kernels, for each of its instructions."""
    digits, _ = data.digits()
    plan, batch_size = Plan(micro_batches=effort.micro_batches), 4 * effort.micro_batches
    settings = {"optimizer": _sgd, "loss": nn.CrossEntropyLoss()}
    training = settings | {"batch_size": batch_size, "steps": effort.steps, "device": found.device}
    runs = [train(_tiny, digits, plan, progress=False, **training) for _ in range(2)]
    measured = min(undisturbed(run.step_times) for run in runs)
    prediction = simulate(_tiny, plan, found.cluster(), batch_size, example=digits[np.arange(1)], **settings)
    beyond = (measured - prediction.step_seconds) / len(prediction.program[0].step)
    return replace(found, compute=found.compute | {"instruction_seconds": max(0.0, beyond)})


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


def _sides(launches) -> dict[str, list[list[float]]]:
    """(bytes, seconds) of the two sides of a message: the sender is rank 0."""
    return {side: _points(launches, "send", (rank,)) for rank, side in enumerate(("send", "receive"))}


def _with_python(points: list[list[float]], python: Points) -> list[list[float]]:
    """(bytes, seconds) with the Python that follows a kernel of as many bytes, and as well a collective of a layer."""
    return [[nbytes, seconds + interpolate(python, nbytes, growing=False)] for nbytes, seconds in points]


def is_quiet(times: Iterable[float]) -> bool:
    """Whether a probe's times are alike, but for the slowest: nothing that is kept is of one moment alone."""
    *usual, _ = sorted(times)
    return usual[-1] < BUSY * usual[0]


def speed_of(ranks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Seconds alone, and together, of what the ranks return from `speed_probe`."""
    return ranks[0][0], statistics.mean(together for _, together in ranks)
