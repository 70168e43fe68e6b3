"""`python -m simulator compare`: train here under several plans, simulate the same programs, compare."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minidl.commands.arguments import check_writable, print_table
from minidl.commands.driver import Outcome
from minidl.commands.progress import progress
from simulator import plots
from simulator.calibrate import BUSY, calibration, drift
from simulator.compare import Comparison, compare

STALE = 0.25  # a machine that has become so much faster or slower is calibrated again before a comparison
PICTURES = (".png", ".svg")
CAPTION = "* more workers than cores: ranks wait for their turns on a core, priced by a measured mean"


def add_parser(commands) -> None:
    parser = commands.add_parser("compare", help="train here under several plans, simulate the same programs, compare")
    add = parser.add_argument
    add("--out", type=Path, default=Path(), metavar="DIR",
        help="folder for compare.png, .svg, .json and the traces (default: here)")  # fmt: skip
    add("--refresh", action="store_true", help="calibrate this machine again first")
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = [options.out / f"compare{ending}" for ending in PICTURES]
    rows = options.out / "compare.json"
    check_writable(rows, *pictures)
    began = time.monotonic()
    with progress() as tell:

        def calibrating(what: str) -> None:
            tell(f"calibrating: {what}")

        found = calibration(options.refresh, calibrating)
        if abs(drift(found) - 1) > STALE:
            found = calibration(True, calibrating)
        result = compare(found, tell)
    seconds = time.monotonic() - began
    traces = [(options.out / file, trace.save) for file, trace in result.traces().items()]

    def draw(path: Path) -> None:
        plots.save(plots.comparison_figure(result), path)

    def show(console: Console) -> None:
        print_table(console, _comparison_table(result))
        _print_errors(result, console)
        console.print(f"{', '.join(map(str, (*pictures, rows)))} and {len(traces)} traces (trace-*.json)"
                      f" after {seconds:.0f} s")  # fmt: skip

    return Outcome([(rows, result.as_dict()), *traces, *((path, draw) for path in pictures)], show)


def _comparison_table(result: Comparison) -> Table:
    table = Table(title="The same programs, measured / simulated", caption=CAPTION, padding=(0, 0, 0, 1))
    table.add_column("plan")
    for column in ("workers", "step, ms", "error", "speedup", "bubble, %", "exposed comm., ms"):
        table.add_column(column, justify="right")
    model = None
    for r in result.rows:
        if r.model != model:
            model = r.model
            table.add_section()
            table.add_row(f"[bold]{model}")
        pairs = (
            (r.measured_bubble_fraction * 100, r.simulated_bubble_fraction * 100, "{:.0f} / {:.0f}"),
            (r.measured_exposed_communication_seconds * 1e3, r.simulated_exposed_communication_seconds * 1e3,
             "{:.2f} / {:.2f}"),
        )  # fmt: skip
        table.add_row(
            r.plan, f"{r.workers}{' *' if r.oversubscribed else ''}",
            f"{r.measured_step_seconds * 1e3:.1f} / {r.simulated_step_seconds * 1e3:.1f}", f"{r.error:+.0%}",
            f"{r.measured_speedup:.2f} / {r.simulated_speedup:.2f}",
            *(form.format(measured, simulated) for measured, simulated, form in pairs),
        )  # fmt: skip
    return table


def _print_errors(result: Comparison, console: Console) -> None:
    for oversubscribed, which in ((False, "workers within the cores"), (True, "more workers than cores")):
        if (error := result.mean_error(oversubscribed)) is not None:
            console.print(f"mean absolute error of the step, {which}: {error:.1%}")
    drifts = [r.drift for r in result.rows]
    console.print(f"the machine was x{min(drifts):.2f} to x{max(drifts):.2f} as slow as when it was calibrated, by a "
                  "fixed probe between the runs; simulated times are scaled by it")  # fmt: skip
    if max(drifts) > BUSY * min(drifts):
        console.print("other programs kept this machine busy meanwhile: the comparison says little; run it again")
