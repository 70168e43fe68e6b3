"""A comparison as text: a table for each model, what its columns are, and how large the errors are."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from minidl.commands.output import print_table
from minidl.commands.plan_options import crowding
from minidl.parallel import Plan
from minidl.units import scaled
from simulator.calibration import at_once, on_gpu
from simulator.commands.shared_output import plain_table, say
from simulator.compare import MEASURES, WAS_BUSY, Comparison, Row
from simulator.report import times

COLUMNS = ("plan", "speedup", "step time", "error", "exposed\ncomm.", "idle", "memory")
LEAST_LABEL = 16  # characters of a plan, however narrow the terminal is
PAIRS = "a/b: a is measured, b simulated."
COPIES = "Copies between host and GPU are in the measured traces, lane copy, and are not simulated."
NULL = "null model: one worker's measured step, over the workers that can run at once"


def show_comparison(result: Comparison, console: Console) -> None:
    """Print all of it."""
    cells = [_cells(row, prediction.plan) for row, prediction in zip(result.rows, result.predictions, strict=True)]
    columns = zip(COLUMNS, zip(*cells, strict=True), strict=True)
    widths = [max(map(len, (*name.split("\n"), *column))) for name, column in columns]
    widths[0] = min(widths[0], max(LEAST_LABEL, console.width - sum(widths[1:]) - len(widths[1:])))
    by_model = groupby(zip(result.rows, result.predictions, cells, strict=True), key=lambda group: group[0].model)
    for model, group in by_model:
        lines = list(group)
        console.print(Text.assemble((model, "bold"), f", {lines[0][1].batch_size} samples a step"))
        print_table(console, _table([(row, line) for row, _, line in lines], widths))
        for label, *_ in (line for *_, line in lines if len(line[0]) > widths[0]):
            say(console, f"…: {label.strip()}")
        console.print()
    say(console, PAIRS)
    for name, meaning in MEASURES.items():
        say(console, f"{name + ':':15}{meaning}")
    if crowded := crowding(max(row.workers for row in result.rows), at_once(result.machine)):
        say(console, crowded)
    console.print()
    _print_errors(result, console)
    if on_gpu(result.machine):
        say(console, COPIES)
    else:
        _print_drift(result, console)


def _table(lines: list[tuple[Row, tuple[str, ...]]], widths: list[int]) -> Table:
    """One line a row: a label that is wider than its column is cut."""
    table = plain_table(gap=1)
    for name, width in zip(COLUMNS, widths, strict=True):
        table.add_column(name, justify="left" if name == "plan" else "right", min_width=width)
    for workers, group in groupby(lines, key=lambda line: line[0].workers):
        if workers > 1:
            table.add_row(f"[dim]{workers} workers")
        for _, (label, *cells) in group:
            table.add_row(label if len(label) <= widths[0] else f"{label[: widths[0] - 1]}…", *cells)
    return table


def _cells(row: Row, plan: Plan) -> tuple[str, ...]:
    shares = zip(row.shares("measured"), row.shares("simulated"), strict=True)
    _, exposed, idle = (f"{100 * measured:.0f}/{100 * simulated:.0f}" for measured, simulated in shares)
    return (
        f" {plan.label}" if row.workers > 1 else plan.label,
        f"{row.measured_speedup:.2f}/{row.simulated_speedup:.2f}",
        times(row.measured_step_seconds, row.simulated_step_seconds),
        f"{row.error:+.0%}", exposed, idle,
        scaled(row.simulated_memory_bytes, "B"),
    )  # fmt: skip


def _print_errors(result: Comparison, console: Console) -> None:
    """The mean absolute errors; beside the null model's those of the same rows."""
    table = plain_table()
    for name in ("mean absolute error of the step time", "rows", "simulator", "null model"):
        table.add_column(name, justify="right" if table.columns else "left")
    fitting = "one worker, on the GPU" if on_gpu(result.machine) else "workers within the cores"
    for oversubscribed, which in ((False, fitting), (True, "more workers than cores")):
        rows = [row for row in result.rows if row.oversubscribed == oversubscribed]
        several = sum(row.workers > 1 for row in rows)
        if several < len(rows):
            table.add_row(which, str(len(rows)), _percent(result.mean_error(oversubscribed)))
            which = "  those of several workers"
        if several:
            table.add_row(which, str(several), *map(_percent, result.mean_errors_of_several(oversubscribed)))
    print_table(console, table)
    if any(row.workers > 1 for row in result.rows):
        say(console, NULL)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _print_drift(result: Comparison, console: Console) -> None:
    drifts = [row.drift for row in result.rows]
    least, most = f"{min(drifts):.2f}", f"{max(drifts):.2f}"
    times = least if least == most else f"{least} to {most}"
    say(console, f"A probe took {times} times its calibrated time; simulated times follow it.")
    if result.busy:
        say(console, WAS_BUSY)
