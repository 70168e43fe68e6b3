"""`python -m minidl bench parallel`: what parallel training gains and costs on this machine."""

import argparse
import itertools
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minidl.bench import two_workers
from minidl.bench.host import BLAS_VARIABLES, machine
from minidl.commands.arguments import check_writable, count
from minidl.commands.driver import Outcome
from minidl.commands.output import print_table
from minidl.commands.progress import progress
from minidl.units import duration

BUSY = 0.3  # load average of the last minute from which a benchmark is not to be trusted
PARALLEL = f"""\
What parallel training gains and costs on this machine, in about two minutes:
  two workers against one: the step of a perceptron 784-1024-1024-10 under data parallelism, global batch
    {two_workers.BATCH_SIZE}, synthetic data, one BLAS thread for each worker; each updates
    its half of the parameters or, unsharded, all of them
  the same of a GPT whose layers two workers share, with and without slices of the sequence between them, and of
    a convolutional network whose images they share
  an all-reduce of 1 MiB in shared memory, in place, against a memcpy of 1 MiB by both ranks at once
  a barrier of two ranks
  what recording the trace takes of a step
The two sides of a ratio are measured in turn; times and ratios are medians. Other programs that run meanwhile show.
Workers start without {" and ".join(BLAS_VARIABLES)}, which would hold BLAS back.
"""


def add_parser(benchmarks) -> None:
    parser = benchmarks.add_parser("parallel", help="what parallel training gains and costs", description=PARALLEL)
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="how often all is measured (default: 5)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results for a program to read")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, console: Console) -> Outcome:
    """Measure."""
    check_writable(chosen.json)
    here = machine()
    done, total = itertools.count(), two_workers.parts(chosen.rounds)
    with progress() as tell:
        results = two_workers.measure(chosen.rounds, lambda what: tell(what, next(done), total))
    files = [(chosen.json, document(here, chosen.rounds, results))]
    return Outcome(files, lambda console: show(console, here, results))


def show(console: Console, here: dict[str, object], results: two_workers.Results) -> None:
    """The machine and a table."""
    console.print(
        f"{here['processor']}, {here['cores']} cores; Python {here['python']}, NumPy {here['numpy']}", highlight=False
    )
    for library in results.blas:
        console.print(
            "a worker's BLAS: {name} {version}, kernels for {architecture}, {threads} thread(s)".format(**library),
            highlight=False,
        )
    if here["load"] > BUSY:
        console.print(
            f"Load average {here['load']:.1f} in the minute before: if other programs run, trust nothing below."
        )
    if here["cores"] < 2:
        console.print("Fewer than 2 cores: two workers share one, and the ratios say nothing about parallel training.")
    collectives, targets = results.collectives, two_workers.TARGETS
    table = Table("", "ratio", "wanted", "times", box=None, header_style="bold", pad_edge=False)
    for speedup in results.speedups:
        table.add_row(
            f"two workers, {speedup.what}", f"{speedup.ratio:.2f}", f"≥ {targets['speedup'][speedup.what]}",
            f"{duration(speedup.one_worker_seconds)} : {duration(speedup.two_workers_seconds)} a step",
        )  # fmt: skip
    table.add_row(
        "all-reduce : memcpy, 1 MiB", f"{collectives.ratio:.2f}", f"≤ {targets['all_reduce']}",
        f"{duration(collectives.all_reduce_seconds)} : {duration(collectives.memcpy_seconds)}",
    )  # fmt: skip
    table.add_row("barrier of 2 ranks", "", "", duration(collectives.barrier_seconds))
    for trace in results.traces:
        table.add_row(
            f"trace : step, {trace.model}", f"{trace.share:.2%}", f"< {targets['trace']:.0%}",
            f"{trace.events_per_step:g} events of {duration(trace.event_seconds)} : {duration(trace.step_seconds)}",
        )  # fmt: skip
    print_table(console, table)


def document(here: dict[str, object], rounds: int, results: two_workers.Results) -> dict[str, object]:
    """What --json writes; times in seconds."""
    return {
        "benchmark": "parallel",
        "machine": here | {"blas": results.blas},
        "oversubscribed": here["cores"] < 2,
        "rounds": rounds,
        "targets": two_workers.TARGETS,
        "speedups": [asdict(speedup) for speedup in results.speedups],
        "collectives": asdict(results.collectives),
        "traces": [asdict(trace) | {"share": trace.share} for trace in results.traces],
    }
