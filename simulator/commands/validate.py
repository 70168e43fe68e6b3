"""`python -m simulator validate`: published measurements, each predicted, and how far off."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from minidl import files
from minidl.commands.arguments import Refused, check_writable
from minidl.commands.driver import EXIT_CODES, Outcome
from minidl.commands.output import print_table
from minidl.commands.progress import Tell, progress
from minidl.units import counted
from simulator.commands.shared_output import plain_table, say, say_written
from simulator.validation.fit import declaration, fit
from simulator.validation.predicted import Predicted, predicted
from simulator.validation.rows import COLUMNS, Row, read
from simulator.validation.scores import Errors, Score, overall, scores

DESCRIPTION = """\
Predict every training step of a file of published measurements, and say how far
off the predictions are: by table and by stack, with and without the constant
that was fitted for each stack on a device, beside a null model.
"""
EPILOG = """\
The first line of the file names its columns:
{columns}.
A measured step_seconds may be empty: that row is predicted, and left out of the
errors. What a column means, and what is taken for one that is empty, is in
simulator/validation/rows.py and cases.py. A row that cannot be simulated is
listed with its reason, and counts against the coverage.

examples:
  python -m simulator validate steps.csv --json predicted.json

{codes}"""
EVERY = 50  # rows between two words of progress
MOST_REASONS = 20  # that are listed


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "validate", help="published measurements, each predicted, and how far off", description=DESCRIPTION,
        epilog=EPILOG.format(columns=textwrap.fill(", ".join(COLUMNS), 80), codes=EXIT_CODES),
    )  # fmt: skip
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a CSV file of published measurements")
    add("--json", type=Path, metavar="PATH", help="also write every row's prediction here")
    add("--fit", type=Path, metavar="PATH",
        help="fit the constants to these rows, write them here, and say nothing of errors: the declaration that is "
        "used is simulator/stacks/constants.toml")  # fmt: skip
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    """Predict and compare as asked."""
    check_writable(options.json, options.fit)
    if options.json and options.fit:
        raise Refused("--fit writes constants and nothing else: leave out --json")
    rows = read(options.file)
    with progress() as tell:
        found = list(_told(rows, tell))
    if options.fit:
        constants = declaration(fit(found))
        return Outcome([(options.fit, lambda path: files.write(path, constants))],
                       lambda console: say_written(console, options.fit))  # fmt: skip
    by_table, by_stack = scores(found, lambda row: row.table), scores(found, lambda row: row.stack)

    def show(console: Console) -> None:
        for what, parts in (("table", by_table), ("stack", by_stack)):
            print_table(console, _table(what, [*parts, overall(found)]))
            console.print()
        say(console, *_reasons(found))
        say_written(console, options.json)

    return Outcome([(options.json, _document(found, by_table, by_stack))], show)


def _told(rows: Sequence[Row], tell: Tell) -> Iterator[Predicted]:
    """Each row predicted, with a word every now and then of how far it is."""
    for done, one in enumerate(predicted(rows)):
        if done % EVERY == 0:
            tell(f"{one.row.table}", done, len(rows))
        yield one


def _document(found: Sequence[Predicted], by_table: Sequence[Score], by_stack: Sequence[Score]) -> dict[str, object]:
    """What --json writes: the rows in order, and the scores. Errors are shares, biases of them positive if too slow."""
    return {
        "rows": [
            {"id": p.row.id, "predicted_seconds": p.seconds, "predicted_seconds_unfitted": p.unfitted_seconds,
             "measured_seconds": p.row.step_seconds, "reason": p.reason}
            for p in found
        ],
        "tables": [asdict(score) for score in by_table],
        "stacks": [asdict(score) for score in by_stack],
        "all": asdict(overall(found)),
    }  # fmt: skip


def _table(what: str, parts: Sequence[Score]):
    """Errors in percent: of the null models, at constants of 1, and fitted."""
    table = plain_table(1)
    for name in (what, "rows", "not", "null", "by sys", "raw", "bias", "fitted", "bias", "median", "worst"):
        table.add_column(name, justify="right" if table.columns else "left")
    for part in parts:
        table.add_row(
            part.name, str(part.rows), str(part.rows - part.simulated or ""),
            _percent(part.null), _percent(part.null_by_system), *_cells(part.unfitted)[:2], *_cells(part.fitted),
        )  # fmt: skip
    return table


def _cells(errors: Errors | None) -> tuple[str, ...]:
    if errors is None:
        return ("-",) * 4
    return (
        _percent(errors.mape), f"{100 * errors.bias:+.0f}", _percent(errors.median), f"{100 * errors.worst_error:+.0f}"
    )  # fmt: skip


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _reasons(found: Sequence[Predicted]) -> Iterator[str]:
    """The rows that were not simulated, each with its reason, and the worst ones."""
    left_out = [p for p in found if p.reason is not None]
    if left_out:
        yield f"Not simulated: {counted(len(left_out), 'row')} of {len(found):,}"
    for p in left_out[:MOST_REASONS]:
        yield f"  {p.row.id}: {p.reason}"
    if len(left_out) > MOST_REASONS:
        yield f"  and {len(left_out) - MOST_REASONS:,} more: --json lists them all"
