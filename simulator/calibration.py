"""A Calibration: what was measured on this machine, or on its GPU; and of which machine it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from minidl.bench.host import BLAS_VARIABLES, machine
from minidl.units import counted
from simulator.compute import Measured
from simulator.hardware import Cluster, Processors
from simulator.measured_devices import MEASURED_DEVICES
from simulator.network import NoNetwork, SharedMemory

VERSION = 18  # of the cache's form
BUSY = 1.3  # by how much a probe may vary on a machine that counts as quiet


@dataclass(frozen=True)
class Calibration:
    """What was measured, as it is cached.

    machine: what it is valid for, as `identity` has it. oversubscription, turn_seconds: see `Processors`.
    probe_seconds: of the speed probe then, by the clock of the threads, on one core and on all at once, to tell how
    the machine drifts. quiet:
    nothing else kept the machine busy; otherwise who uses it is warned. network, probe_seconds: None of a GPU.
    """

    machine: dict[str, object]
    compute: dict[str, object]
    network: dict[str, object] | None
    memory_bytes: float
    peak_flops: float
    oversubscription: float
    turn_seconds: float
    probe_seconds: list[float] | None
    quiet: bool = True
    version: int = VERSION

    @property
    def device(self) -> str:
        """What was measured: the "cpu" or "cuda"."""
        return "cuda" if on_gpu(self.machine) else "cpu"

    def cluster(self) -> Cluster:
        """The machine as a Cluster: of its cores, or of one GPU."""
        compute, peaks = Measured(**self.compute, device=self.device), {"float32": self.peak_flops}
        if not MEASURED_DEVICES[self.device].parallel:
            return Cluster(
                self.machine["gpu"], 1, compute, NoNetwork(), self.memory_bytes, peaks, device=self.machine["gpu"]
            )
        cores = self.machine["cores"]
        return Cluster(
            "this machine", cores, compute, SharedMemory(**self.network), self.memory_bytes, peaks,
            Processors(cores, self.oversubscription, self.turn_seconds),
        )  # fmt: skip


def identity(device: str = "cpu") -> dict[str, object]:
    """What a calibration is valid for: processor, cores that may be used, Python and NumPy, what BLAS is held to.

    On the device cuda also the GPU: how fast its kernels are launched is up to the processor.
    """
    here = machine()
    held = {name: os.environ[name] for name in BLAS_VARIABLES if name in os.environ}
    known = {key: here[key] for key in ("processor", "cores", "python", "numpy")} | {"blas": held}
    name = MEASURED_DEVICES[device].name
    return known | ({"gpu": name()} if name else {})


def on_gpu(machine: Mapping) -> bool:
    """Whether an `identity` is of a GPU."""
    return "gpu" in machine


def in_words(machine: Mapping) -> str:
    """What an `identity` is of."""
    return machine["gpu"] if on_gpu(machine) else f"{machine['processor']}, {counted(machine['cores'], 'core')}"


def at_once(machine: Mapping) -> int:
    """How many workers can run at once on what an `identity` is of."""
    return 1 if on_gpu(machine) else machine["cores"]
