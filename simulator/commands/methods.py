"""`python -m simulator methods`: every method of training in parallel, what it costs, and its step here."""

from __future__ import annotations

import argparse
import statistics
import textwrap
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minidl.bench.machine import cores
from minidl.commands.arguments import Refused, check_writable, count, print_table
from minidl.commands.driver import EXIT_CODES, Outcome
from minidl.commands.progress import progress
from minidl.parallel import forkserver
from minidl.units import duration, scaled
from simulator.calibrate import quick
from simulator.commands.clusters import THIS_MACHINE, cluster_name, clusters
from simulator.commands.compare import fitting_calibration
from simulator.compare import WAS_BUSY, compare
from simulator.experiments import QUICK_ROUNDS, ROUNDS
from simulator.hardware import Cluster
from simulator.measure import FULL, in_words
from simulator.methods import METHODS, Row, chosen_methods, compared, simulated

WORKERS = 2
DESCRIPTION = """\
Every method of training in parallel: what it is, what a worker sends and holds,
when it pays, and how long a step of an example takes: measured here, beside
what the simulator says of it, with the error. Nothing that is measured of a
training goes into the simulation.
"""
EPILOG = f"""\
methods: {", ".join(method.name for method in METHODS)}

examples:
  python -m simulator methods --quick --method data --method 1f1b
  python -m simulator methods --cluster dgx-a100 --workers 8 --json methods.json

{EXIT_CODES}"""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "methods", help="every method of training in parallel: what it costs, and its step, measured and simulated",
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--method", action="append", default=[], metavar="NAME", help="one of these, may be repeated (default: all)")
    add("--cluster", type=cluster_name, default=THIS_MACHINE, metavar="NAME",
        help=f"what to simulate, and measure nothing: one of {clusters()}, or a TOML file (default: {THIS_MACHINE}, "
        "which is measured)")  # fmt: skip
    add("--workers", type=count, default=WORKERS, metavar="N", help=f"over how many (default: {WORKERS})")
    add("--rounds", type=count, metavar="N",
        help=f"runs of each, of which the median counts (default: {ROUNDS}, with --quick {QUICK_ROUNDS})")  # fmt: skip
    add("--quick", action="store_true", help="each method is run once; a calibration for them alone is not kept")
    add("--refresh", action="store_true", help="calibrate this machine again first")
    add("--json", type=Path, metavar="PATH", help="also write the numbers here")
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    """Measure and simulate as asked."""
    methods = chosen_methods(options.method)
    here = options.cluster == THIS_MACHINE
    if here and options.workers > cores():
        raise Refused(f"--workers {options.workers}: this machine has {cores()} cores; name a --cluster to simulate")
    check_writable(options.json)
    with progress() as tell:
        if here:
            rows, comparison = _measured(options, methods, tell)
            machine, busy = in_words(comparison.machine), comparison.busy
        else:
            cluster = Cluster.load(options.cluster, devices=options.workers)
            rows, _ = simulated(methods, options.workers, cluster)
            machine, busy = cluster.size, False

    def show(console: Console) -> None:
        _show(rows, machine, console)
        if busy:
            console.print(WAS_BUSY)
        if options.json:
            console.print(str(options.json), highlight=False)

    errors = [abs(row.error) for row in rows if row.error is not None]
    document = {
        "machine": machine, "rows": [asdict(row) for row in rows],
        "mean_absolute_error": statistics.mean(errors) if errors else None,
    }  # fmt: skip
    return Outcome([(options.json, document)], show)


def _measured(options, methods, tell):
    experiments = [method.experiment(options.workers) for method in methods]
    profiles = (experiment.profile(experiment.plans[0]) for experiment in experiments)
    effort = quick(profiles) if options.quick else FULL
    with forkserver():
        found = fitting_calibration(options.refresh, tell, effort)
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        comparison = compare(found, tell, experiments, rounds)
    return compared(methods, comparison, found.cluster()), comparison


def _show(rows: list[Row], machine: str, console: Console) -> None:
    """Two lines and a phrase for each method; what the columns are; and how large the errors are."""
    measured = any(row.measured_step_seconds is not None for row in rows)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("method", "a worker sends", "it holds", "one alone", "step", *["error"] * measured):
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        cells = [scaled(row.sent.total, "B"), scaled(row.memory_bytes, "B"), scaled(row.one_worker_memory_bytes, "B")]
        cells.append(_times(row))
        table.add_row(row.name, *cells, *([f"{row.error:+.0%}"] if measured else []))
    print_table(console, table)
    console.print()
    for row in rows:
        text = f"{row.name}: {row.what} ({row.source}). Pays where {row.pays}."
        for line in textwrap.wrap(text, min(console.width, 100), subsequent_indent="  "):
            console.print(line, highlight=False, markup=False)
    console.print()
    console.print(f"{machine}, {rows[0].workers} workers", highlight=False)
    if measured:
        errors = [abs(row.error) for row in rows]
        console.print("a/b: a is measured, b simulated.", highlight=False)
        console.print(f"Mean absolute error of the step over {len(rows)} methods: {statistics.mean(errors):.1%}",
                      highlight=False)  # fmt: skip


def _times(row: Row) -> str:
    """The measured and the simulated time; the unit once, if it is the same."""
    simulated, unit = duration(row.simulated_step_seconds).rsplit(" ", 1)
    if row.measured_step_seconds is None:
        return f"{simulated} {unit}"
    measured, other = duration(row.measured_step_seconds).rsplit(" ", 1)
    return f"{measured}/{simulated} {unit}" if unit == other else f"{measured} {other}/{simulated} {unit}"
