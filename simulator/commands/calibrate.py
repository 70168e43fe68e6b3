"""`python -m simulator calibrate`: measure this machine, and say what was found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minidl.commands.arguments import check_writable, print_table, progress_bar
from minidl.commands.driver import Outcome
from simulator.calibrate import Calibration, cache_path, calibration
from simulator.commands.progress import CALIBRATING, PROGRESS


def add_parser(commands) -> None:
    parser = commands.add_parser("calibrate", help="measure this machine, and say what was found")
    add = parser.add_argument
    add("--refresh", action="store_true", help="measure again even if there is a cached calibration")
    add("--json", type=Path, metavar="PATH", help="also write everything that was measured here")
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    check_writable(options.json)
    with progress_bar(console, *PROGRESS) as bar:
        task = bar.add_task(CALIBRATING, total=None)
        found = calibration(options.refresh, lambda what: bar.update(task, description=f"calibrating: {what}"))
    return Outcome([(options.json, asdict(found))], lambda console: _show_calibration(found, console))


def _show_calibration(found: Calibration, console: Console) -> None:
    compute, network = found.compute, found.network
    small = found.cluster().compute.matmul_seconds(1, 64, 64, 64)
    table = Table(title=f"{found.machine['processor']}, {found.machine['cores']} cores", show_header=False)
    table.add_row("matrix product 1024 x 1024 x 1024", f"{found.peak_flops / 1e9:.0f} GFLOP/s on one core")
    table.add_row("  64 x 64 x 64", f"{2 * 64**3 / small / 1e9:.0f} GFLOP/s")
    python = [s * 1e6 for _, s in compute["python"]]
    table.add_row("Python after a kernel call", f"{python[0]:.1f} us, {python[-1]:.1f} us after one that moves much")
    table.add_row("  around an instruction", f"{compute['instruction_seconds'] * 1e6:.2f} us")
    table.add_row("slower while all cores are busy", f"matrix product x{compute['matmul_contention']:.2f}, "
                  f"adding 16 MiB x{compute['contention'][-1][1]:.2f}")  # fmt: skip
    table.add_row("  two ranks on one core, against in turn", f"x{found.sharing:.2f}")
    table.add_row("  to go on after waiting for one another", f"{found.turn_seconds * 1e6:.0f} us")
    for name in ("all_reduce", "all_gather"):
        points = network["collectives"][name]
        table.add_row(f"{name}, 2 workers", ", ".join(f"{size >> 10} KiB {s * 1e6:.0f} us" for size, s in points[1::2]))
    for name in ("send", "receive"):
        table.add_row(name, ", ".join(f"{size >> 10} KiB {s * 1e6:.0f} us" for size, s in network[name][1::2]))
    print_table(console, table)
    if path := cache_path():
        console.print(f"kept in {path}")
