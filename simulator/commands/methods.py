"""`python -m simulator methods`: every method of training in parallel, what it costs, and its step here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console

from minidl import files
from minidl.bench.host import cores
from minidl.commands.arguments import Refused, check_writable, count
from minidl.commands.driver import EXIT_CODES, Outcome
from minidl.commands.output import print_table
from minidl.commands.pictures import drawn, pictures
from minidl.commands.progress import progress
from minidl.parallel import forkserver
from minidl.trace import Trace
from minidl.units import counted, duration, scaled
from simulator.calibrate import quick
from simulator.calibration import in_words
from simulator.commands.cluster_option import THIS_MACHINE, add_cluster_option
from simulator.commands.compare import fitting_calibration
from simulator.commands.shared_output import plain_table, say, say_written
from simulator.compare import WAS_BUSY, compare
from simulator.experiments import QUICK_ROUNDS, ROUNDS
from simulator.hardware import Cluster
from simulator.measure import FULL
from simulator.method_list import METHODS
from simulator.methods import (
    Method,
    Row,
    chosen_methods,
    compared,
    fitting,
    mean_error,
    simulated,
    usual_step,
)
from simulator.report import times

WORKERS = 2
DESCRIPTION = """\
Every method of training in parallel: what it is, what a worker sends and holds,
when it pays, and how long a step of an example takes: measured here, beside
what the simulator says of it, with the error. Nothing that is measured of a
training goes into the simulation.
"""
EPILOG = f"""\
{textwrap.fill("methods: " + "; ".join(method.name for method in METHODS), 80)}

examples:
  python -m simulator methods --quick --method data --method 1f1b
  python -m simulator methods --cluster dgx-a100 --workers 8 --json methods.json

{EXIT_CODES}"""


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "methods",
        help="every method of training in parallel: what it costs, and its step, measured and simulated",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--method", action="append", default=[], metavar="NAME", help="one of these, may be repeated (default: all)")
    add_cluster_option(add)
    add("--workers", type=count, default=WORKERS, metavar="N",
        help=f"over how many; methods that cannot be spread so are left out (default: {WORKERS})")  # fmt: skip
    add("--rounds", type=count, metavar="N",
        help=f"runs of each, of which the median counts (default: {ROUNDS}, with --quick {QUICK_ROUNDS})")  # fmt: skip
    add("--quick", action="store_true",
        help="run each once; a calibration that this needs is of them alone, and not kept")  # fmt: skip
    add("--refresh", action="store_true", help="calibrate this machine again first")
    add("--json", type=Path, metavar="PATH", help="also write the numbers here")
    add("--markdown", type=Path, metavar="PATH", help="also write a table in Markdown here")
    add("--out", type=Path, metavar="DIR",
        help="also draw here: methods.png and .svg, and for each method step-NAME.png, a step measured and below it "
        "the simulated one")  # fmt: skip
    add("--trace", action="append", default=[], metavar="NAME",
        help="a method whose step is drawn with --out, may be repeated (default: all)")  # fmt: skip
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    """Measure and simulate as asked."""
    here = options.cluster == THIS_MACHINE
    if here and options.workers > cores():
        raise Refused(f"--workers {options.workers}: this machine has {counted(cores(), 'core')}; "
                      "name a --cluster to simulate more")  # fmt: skip
    methods, left_out = fitting(chosen_methods(options.method), options.workers)
    if options.method and left_out:
        name, why = next(iter(left_out.items()))
        raise Refused(f"{name}: {why}")
    traced = _traced(options, methods)
    overview = pictures(options.out, "methods") if options.out else []
    steps = {name: options.out / f"step-{re.sub('[^a-z0-9]+', '-', name)}.png" for name in traced}
    check_writable(options.json, options.markdown, *overview, *steps.values())

    with progress() as tell:
        if here:
            rows, traces, machine, busy = _measured(options, methods, tell)
        else:
            cluster = Cluster.load(options.cluster, devices=options.workers)
            rows, simulated_traces = zip(*simulated(methods, options.workers, cluster), strict=True)
            traces, machine, busy = [(trace,) for trace in simulated_traces], cluster.size, False

    def figure():
        from simulator.method_figure import method_figure  # loaded late: matplotlib takes as long as the rest

        return method_figure(rows, machine)

    def show(console: Console) -> None:
        _show(rows, machine, left_out, console)
        if busy:
            console.print(WAS_BUSY)
        more = f" and {counted(len(steps), 'step')} (step-*.png)" if steps else ""
        say_written(console, options.json, options.markdown, *overview, more=more)

    by_name = {row.name: found for row, found in zip(rows, traces, strict=True)}
    document = {
        "machine": machine, "workers": options.workers, "rows": [asdict(row) for row in rows],
        "left_out": left_out, "mean_absolute_error": mean_error(rows),
    }  # fmt: skip
    return Outcome([
        (options.json, document), (options.markdown, lambda path: files.write(path, markdown(rows, machine))),
        *drawn(figure, *overview),
        *(file for name, path in steps.items() for file in drawn(partial(_step_figure, name, by_name[name]), path)),
    ], show)  # fmt: skip


def _traced(options, methods: list[Method]) -> list[str]:
    """The names of the methods of which a step is drawn. Refused for others than those that are run."""
    if options.trace and not options.out:
        raise Refused("--trace draws a step: say where to with --out DIR")
    names = [method.name for method in methods]
    for name in options.trace:
        if name not in names:
            raise Refused(f"--trace {name}: of the methods here there are {', '.join(names)}")
    if not options.out:
        return []
    return list(dict.fromkeys(options.trace)) or names


def _measured(options, methods: list[Method], tell) -> tuple[list[Row], list[tuple[Trace, ...]], str, bool]:
    """The rows, the measured and the simulated trace of each, the machine, and whether it was busy."""
    experiments = [method.experiment(options.workers) for method in methods]
    profiles = (experiment.profile(experiment.plans[0]) for experiment in experiments)
    effort = quick(profiles) if options.quick else FULL
    with forkserver():
        found = fitting_calibration(options.refresh, tell, effort)
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        comparison = compare(found, tell, experiments, rounds)
    rows = compared(methods, comparison, found.cluster())
    pairs = zip(comparison.runs, comparison.predictions, strict=True)
    traces = [(run.trace, prediction.trace) for run, prediction in pairs]
    return rows, traces, in_words(comparison.machine), comparison.busy


def _step_figure(name: str, traces: tuple[Trace, ...]):
    """A usual step of each trace, one above the other, on one axis of time."""
    from minidl import plots

    titles = [f"{name}, {trace.kind}: {duration(trace.step_seconds)} a step" for trace in traces]
    return plots.timeline_figure(list(zip(titles, map(usual_step, traces), strict=True)))


def markdown(rows: Sequence[Row], machine: str) -> str:
    """A table in Markdown, of methods, what they cost, and their step."""
    measured = any(row.measured_step_seconds is not None for row in rows)
    where = f"{machine}, {counted(rows[0].workers, 'worker')}"
    lines = [
        _line(where, "what it is, and when it pays", "sends", "holds", "one alone", "step", *["error"] * measured),
        "|---|---|" + "--:|" * (4 + measured),
    ]
    for row in rows:
        held = scaled(row.memory_bytes, "B"), scaled(row.one_worker_memory_bytes, "B")
        step = times(row.measured_step_seconds, row.simulated_step_seconds)
        error = [f"{row.error:+.0%}"] if measured else []
        lines.append(_line(row.name, _said(row), scaled(row.sent.total, "B"), *held, step, *error))
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _said(row: Row) -> str:
    return f"{row.what} ({row.source}). Pays where {row.pays}."


def _show(rows: Sequence[Row], machine: str, left_out: dict[str, str], console: Console) -> None:
    """A line for each method, then what each is; what was left out; and how large the errors are."""
    measured = any(row.measured_step_seconds is not None for row in rows)
    table = plain_table()
    for name in ("method", "sends", "holds", "one alone", "step", *["error"] * measured):
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        cells = [scaled(row.sent.total, "B"), scaled(row.memory_bytes, "B"), scaled(row.one_worker_memory_bytes, "B")]
        table.add_row(
            row.name,
            *cells,
            times(row.measured_step_seconds, row.simulated_step_seconds),
            *([f"{row.error:+.0%}"] if measured else []),
        )
    print_table(console, table)
    console.print()
    for row in rows:
        _wrap(console, f"{row.name}: {_said(row)}")
    console.print()
    for name, why in left_out.items():
        _wrap(console, f"left out: {name}: {why}")
    where = f"{machine}, {counted(rows[0].workers, 'worker')}"
    _wrap(console, f"{where}. Each holds, and sends in a step, at most so much; "
                   "one alone: what one worker holds that does all.")  # fmt: skip
    if measured:
        _wrap(console, "a/b: a is measured, b simulated.")
        _wrap(console, f"Mean absolute error of the step over {counted(len(rows), 'method')}: {mean_error(rows):.1%}")


def _wrap(console: Console, text: str) -> None:
    """In lines of at most 100 characters."""
    say(console, *textwrap.wrap(text, min(console.width, 100), subsequent_indent="  "))
