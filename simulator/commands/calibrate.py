"""`python -m simulator calibrate`: measure this machine, or its GPU, and say what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from minidl.commands.arguments import check_device, check_writable
from minidl.commands.driver import Outcome
from minidl.commands.output import print_table
from minidl.commands.progress import progress
from minidl.display import fact_table
from minidl.json_files import read_json
from minidl.units import duration, scaled
from simulator.calibrate import cache_path, calibration
from simulator.calibration import Calibration, in_words
from simulator.measured_devices import MEASURED_DEVICES


def add_parser(commands) -> None:
    parser = commands.add_parser("calibrate", help="measure this machine, or its GPU, and say what was found")
    add = parser.add_argument
    add("--device", choices=MEASURED_DEVICES, default="cpu",
        help="cuda: the NVIDIA GPU of this machine, whose kernels are compiled first (default: cpu)")  # fmt: skip
    add("--refresh", action="store_true", help="measure again even if there is a cached calibration")
    add("--json", type=Path, metavar="PATH", help="also write everything that was measured here")
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    check_writable(options.json)
    check_device(options.device)
    with progress() as tell:
        found = calibration(options.refresh, lambda what: tell(f"calibrating: {what}"), device=options.device)
    return Outcome([(options.json, asdict(found))], lambda console: _show_calibration(found, console))


def _show_calibration(found: Calibration, console: Console) -> None:
    compute, largest = found.compute, " × ".join([f"{found.compute['gemm_sizes'][-1]}"] * 3)
    shared = MEASURED_DEVICES[found.device].parallel
    small = found.cluster().compute.matmul_seconds(1, 64, 64, 64)
    after, after_much = compute["python"][0][1], compute["python"][-1][1]
    rows = [
        (f"matrix product {largest}", scaled(found.peak_flops, "FLOP/s") + " on one core" * shared),
        ("  64 × 64 × 64", scaled(2 * 64**3 / small, "FLOP/s")),
        ("Python after a kernel call", f"{duration(after)}, {duration(after_much)} after a large one"),
        ("  around an instruction", duration(compute["instruction_seconds"])),
        *(_of_cores(found) if shared else _of_gpu(found)),
    ]
    console.print(Text(in_words(found.machine), style="bold"))
    print_table(console, fact_table(rows))
    if path := _kept(found):
        console.print(f"kept in {path}")


def _of_gpu(found: Calibration) -> Iterator[tuple[str, str]]:
    """Names and values: its memory, and an addition of few numbers, which is a launch, and of many."""
    additions = found.compute["kernels"]["add"]
    (_, launch), (nbytes, seconds) = additions[0], additions[-1]
    yield "addition of few numbers, a launch", duration(launch)
    yield f"  that moves {_binary(nbytes)}", scaled(nbytes / seconds, "B/s")
    yield "memory", scaled(found.memory_bytes, "B")


def _of_cores(found: Calibration) -> list[tuple[str, str]]:
    """Names and values: what busy cores and communication cost."""
    compute, network = found.compute, found.network
    rows = [
        ("slower while all cores are busy", f"matrix product ×{compute['matmul_contention']:.2f}, "
         f"adding 16 MiB ×{compute['contention'][-1][1]:.2f}"),
        ("  two ranks on a core, not in turn", f"×{found.oversubscription:.2f}"),
        ("  to go on after waiting", f"{duration(found.turn_seconds)} of ranks that share cores"),
    ]  # fmt: skip
    for name, points in (
        *((f"{name}, 2 workers", network["collectives"][name]) for name in ("all_reduce", "all_gather")),
        *((name, network[name]) for name in ("send", "receive")),
    ):
        rows += [(name, ", ".join(f"{_binary(nbytes)} {duration(seconds)}" for nbytes, seconds in points[1::2]))]
    return rows


def _kept(found: Calibration) -> Path | None:
    """Where this calibration is kept; None for one that is used once, or could not be written."""
    path = cache_path(found.device)
    try:
        return path if path and read_json(path) == json.loads(json.dumps(asdict(found))) else None
    except (OSError, ValueError):
        return None


def _binary(nbytes: int) -> str:
    return f"{nbytes >> 20} MiB" if nbytes >= 1 << 20 else f"{nbytes >> 10} KiB"
