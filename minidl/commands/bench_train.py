"""`python -m minidl bench train`: how fast training steps are, against PyTorch where it is installed."""

import argparse
import itertools
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minidl.bench import training_steps
from minidl.bench.host import BLAS_VARIABLES, machine
from minidl.bench.workloads import DESCRIPTIONS
from minidl.commands.arguments import Refused, check_writable, count
from minidl.commands.driver import Outcome
from minidl.commands.output import print_table
from minidl.commands.progress import progress

THREADS = (1, 2)
TRAIN = f"""\
How long a training step takes (forward, backward and the optimizer's update, float32) on this machine:
{chr(10).join(f"  {name}  {what}" for name, what in DESCRIPTIONS.items())}
With --vs torch, in about four minutes, beside the same in PyTorch: eager as installed, and tuned by hand (channels
last, fused optimizers, an allocator that keeps memory). A ratio is ours / PyTorch's: below 1, minidl is faster.
Each side is a process of its own, their blocks of steps take turns; times and ratios are medians. Other programs that
run meanwhile show. Processes start without {" and ".join(BLAS_VARIABLES)}, which would hold NumPy's BLAS
back. PyTorch's own BLAS takes a slow path on AMD processors: expect ratios nearer 1 on others.
"""


def add_parser(benchmarks) -> None:
    parser = benchmarks.add_parser("train", help="how fast training steps are, against PyTorch", description=TRAIN)
    parser.add_argument("--vs", choices=["torch"], help="compare with PyTorch, which must be installed")
    parser.add_argument("--workloads", nargs="+", choices=list(DESCRIPTIONS), default=list(DESCRIPTIONS), metavar="W",
                        help=f"only some of {', '.join(DESCRIPTIONS)}")  # fmt: skip
    parser.add_argument("--threads", nargs="+", type=count, default=list(THREADS), metavar="N",
                        help=f"with how many threads (default: {' and '.join(map(str, THREADS))})")  # fmt: skip
    parser.add_argument("--rounds", type=count, default=9, metavar="N", help="turns of each side (default: 9)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results for a program to read")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, console: Console) -> Outcome:
    """Measure."""
    check_writable(chosen.json)
    if chosen.vs and not training_steps.has_torch():
        raise Refused("--vs torch needs PyTorch: pip install torch==2.13.0")
    here = machine() | {"blas": training_steps.blas()}
    done, total = itertools.count(), len(chosen.workloads) * len(chosen.threads) + 1
    with progress() as tell:

        def report(what: str) -> None:
            tell(what, next(done), total)

        rows = training_steps.measure(chosen.workloads, chosen.threads, chosen.rounds, bool(chosen.vs), report)
        report("starting processes")
        start = training_steps.start_up()
    files = [(chosen.json, document(here, chosen.rounds, rows, start))]
    return Outcome(files, lambda console: show(console, here, rows, start))


def show(
    console: Console, here: dict[str, object], rows: list[training_steps.Row], start: training_steps.StartUp
) -> None:
    """The machine and a table."""
    libraries = ", ".join("{name} {version} for {architecture}".format(**library) for library in here["blas"])
    console.print(
        f"{here['processor']}, {here['cores']} cores; Python {here['python']}, NumPy {here['numpy']}, {libraries}",
        highlight=False,
    )
    table = Table("", "threads", "ours", "PyTorch", "ratio", "wanted", "tuned", "ratio", "peak memory",
                  box=None, header_style="bold", pad_edge=False)  # fmt: skip
    for row in rows:
        memory = "" if row.ours_peak_mb is None else f"{row.ours_peak_mb:.0f} MB"
        if row.torch_peak_mb:
            memory += f" : {row.torch_peak_mb:.0f} MB = {row.ours_peak_mb / row.torch_peak_mb:.2f}"
        table.add_row(
            row.workload, str(row.threads), f"{row.ours_ms:.3g} ms",
            *(("", "", "") if row.ratio is None else (
                f"{row.torch_ms:.3g} ms", f"{row.ratio:.2f}", f"≤ {training_steps.TARGETS[row.workload]}")),
            *(("", "") if row.tuned_ratio is None else (f"{row.tuned_ms:.3g} ms", f"{row.tuned_ratio:.2f}")),
            memory,
        )  # fmt: skip
    print_table(console, table)
    console.print(
        f"A fresh process has imported minidl after {start.import_seconds:.2f} s (wanted ≤ "
        f"{training_steps.IMPORT_TARGET}) and made the second step of W1 after {start.second_step_seconds:.2f} s "
        f"(wanted ≤ {training_steps.SECOND_STEP_TARGET}).",
        highlight=False,
    )


def document(
    here: dict[str, object], rounds: int, rows: list[training_steps.Row], start: training_steps.StartUp
) -> dict[str, object]:
    """What --json writes; milliseconds, seconds and megabytes, as the names say."""
    return {
        "benchmark": "train",
        "machine": here,
        "rounds": rounds,
        "targets": training_steps.TARGETS,
        "memory_targets": training_steps.MEMORY_TARGETS,
        "rows": [asdict(row) for row in rows],
        "start_up": asdict(start),
    }
