"""calibrate(): this machine, or its GPU, as a Cluster: measured once, by measure.py, and kept in a file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from minidl import files, json_files
from minidl.caches import cache_folder
from minidl.kernels.meta import KernelCall
from minidl.parallel import launch
from minidl.parallel.chain_profile import ChainProfile
from simulator import schema
from simulator.calibration import VERSION, Calibration, identity
from simulator.compute.timed import as_computed, timed_as
from simulator.hardware import Cluster
from simulator.measure import FULL, Effort, check_measurable, measure, speed_of
from simulator.measured_devices import MEASURED_DEVICES
from simulator.probes import between_workers, busy_cores

WAS_BUSY = """this machine was busy as it was calibrated, and predictions may be far off:
`python -m simulator calibrate --refresh` measures it again"""

SECONDS = schema.rising(schema.pair(schema.NOT_NEGATIVE, schema.POSITIVE))  # by bytes
COMMON = {
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
    "memory_bytes": schema.POSITIVE, "peak_flops": schema.POSITIVE, "oversubscription": schema.FACTOR,
    "turn_seconds": schema.NOT_NEGATIVE, "quiet": schema.boolean, "version": schema.COUNT,
}  # fmt: skip
BESIDE = {  # what the calibration of a device has besides
    "cpu": {
        "network": schema.table({
            "collectives": schema.table_of(SECONDS, needed=(*between_workers.COLLECTIVES, "alone")),
            "layers": schema.table_of(SECONDS, needed=(*between_workers.IN_LAYERS, *between_workers.SIDES)),
            "send": SECONDS, "receive": SECONDS,
        }),
        "probe_seconds": schema.pair(schema.POSITIVE, schema.POSITIVE),
    },
    "cuda": {"network": schema.null, "probe_seconds": schema.null},
}  # fmt: skip
FILE = {device: schema.table(COMMON | beside) for device, beside in BESIDE.items()}


def quick(profiles: Iterable[ChainProfile], device: str = "cpu") -> Effort:
    """The effort for a calibration that is used once, to simulate what has these profiles: about half the time."""
    names = set().union(*(called(profile, device) for profile in profiles))
    return Effort(contention=1, rounds=3, iterations=11, launches=1, kernels=names)


def called(profile: ChainProfile, device: str = "cpu") -> set[str]:
    """The kernels that a training step calls, by the names of `timed_as`; not those that move nothing."""
    blocks = profile.blocks
    calls = [call for b in blocks for call in (*b.forward, *b.backward, *b.accumulate, *b.update)]
    kernels = [c for c in (*calls, *profile.loss) if isinstance(c, KernelCall) and c.bytes_read]
    return {timed_as(as_computed(call, device)) for call in kernels}


def calibrate(refresh: bool = False, progress: Callable[[str], None] | None = None, device: str = "cpu") -> Cluster:
    """This machine as a Cluster: from the cache, or measured, which takes about half a minute, and cached.

    refresh: measure again. progress: told what is being measured. device: "cuda" for its GPU, a Cluster of one device;
    its kernels are compiled first, which takes minutes. RuntimeError says what is missing where there is no GPU.
    """
    return calibration(refresh, progress, device=device).cluster()


def calibration(
    refresh: bool = False,
    progress: Callable[[str], None] | None = None,
    effort: Effort = FULL,
    device: str = "cpu",
) -> Calibration:
    """As `calibrate`, but all that was measured. A cache that cannot be used is replaced, with a warning.

    effort: of what is measured if there is none in the cache; one of less than FULL is not kept.
    """
    if device not in MEASURED_DEVICES:
        raise ValueError(f"there is no device {device!r} to calibrate: there are {', '.join(MEASURED_DEVICES)}")
    check_measurable(device, effort)
    path = cache_path(device)
    if path and not refresh:
        try:
            if kept := _read(path, device):
                return _warned(kept)
        except (OSError, ValueError) as error:
            warnings.warn(f"the calibration cache {path} cannot be used ({error}): measuring again", stacklevel=2)
    found = measure(progress or (lambda what: None), effort, device)
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


def _read(path: Path, device: str = "cpu") -> Calibration | None:
    """The calibration in a file; None without one of this device and version. ValueError if it is damaged; OSError."""
    try:
        table = json_files.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if isinstance(table, dict) and isinstance(table.get("version"), int) and table["version"] != VERSION:
        return None  # of a form that was another
    FILE[device]("", table)
    sizes, seconds = table["compute"]["gemm_sizes"], table["compute"]["gemm_seconds"]
    if len(sizes) < 2 or len(set(sizes)) < len(sizes) or len(seconds) != len(sizes) ** 3:
        raise ValueError(f"{len(seconds)} gemm_seconds do not fit the gemm_sizes {sizes}")
    return Calibration(**table) if table["machine"] == identity(device) else None


def drift(calibration: Calibration) -> tuple[float, float]:
    """How much slower this machine is now than when it was calibrated: a fixed probe's time over its time then.

    On one core, and on all at once, whose time may vary where that of one does not. A GPU has no such probe, and
    counts as steady.
    """
    if calibration.probe_seconds is None:
        return 1.0, 1.0
    now = speed_of(launch(busy_cores.speed_probe, calibration.machine["cores"]))
    alone, together = (t / then for t, then in zip(now, calibration.probe_seconds, strict=True))
    return alone, together


def cache_path(device: str = "cpu") -> Path | None:
    """Where the calibration is kept: $MINIDL_CACHE, else the user's cache folder; None without either."""
    folder = cache_folder()
    return folder and folder / MEASURED_DEVICES[device].file
