"""`python -m simulator validate`: published measurements, each predicted, and how far off."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from minidl import files
from minidl.bench.host import cores
from minidl.commands.arguments import Refused, check_writable
from minidl.commands.driver import EXIT_CODES, Outcome
from minidl.commands.output import print_table
from minidl.commands.progress import Tell, progress
from simulator.commands.shared_output import say, say_written
from simulator.commands.validation_tables import EXPLAINED, page, reasons, score_table, worst_rows
from simulator.validation.fit import declaration, fit
from simulator.validation.predicted import Predicted, predicted
from simulator.validation.rows import COLUMNS, Row, read
from simulator.validation.scores import Score, overall, scores

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


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "validate", help="published measurements, each predicted, and how far off", description=DESCRIPTION,
        epilog=EPILOG.format(columns=textwrap.fill(", ".join(COLUMNS), 80), codes=EXIT_CODES),
    )  # fmt: skip
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a CSV file of published measurements")
    add("--json", type=Path, metavar="PATH", help="also write every row's prediction here")
    add("--markdown", type=Path, metavar="PATH", help="also write the errors as a page in Markdown here")
    add("--fit", type=Path, metavar="PATH",
        help="fit the constants to these rows, write them here, and say nothing of errors: the declaration that is "
        "used is simulator/stacks/constants.toml")  # fmt: skip
    parser.set_defaults(run=run)


def run(options, console: Console) -> Outcome:
    """Predict and compare as asked."""
    check_writable(options.json, options.markdown, options.fit)
    if options.fit and (options.json or options.markdown):
        raise Refused("--fit writes constants and nothing else: leave out --json and --markdown")
    rows = read(options.file)
    with progress() as tell:
        found = list(_told(rows, tell))
    if options.fit:
        constants = declaration(fit(found))
        return Outcome([(options.fit, lambda path: files.write(path, constants))],
                       lambda console: say_written(console, options.fit))  # fmt: skip
    by_table, by_stack = scores(found, lambda row: row.table), scores(found, lambda row: row.stack)
    everything = overall(found)

    def show(console: Console) -> None:
        for what, parts in (("table", by_table), ("stack", by_stack)):
            print_table(console, score_table(what, [*parts, everything]))
            console.print()
        say(console, *textwrap.wrap(" ".join(EXPLAINED.replace("`", "").split()), 80))
        say(console, "", "Worst rows:", *worst_rows(by_table))
        if left_out := list(reasons(found)):
            say(console, "", "Not simulated:", *left_out)
        say_written(console, options.json, options.markdown)

    document = _document(found, by_table, by_stack, everything)
    return Outcome([
        (options.json, document),
        (options.markdown, lambda path: files.write(path, page(found, everything, table=by_table, stack=by_stack))),
    ], show)  # fmt: skip


def _told(rows: Sequence[Row], tell: Tell) -> Iterator[Predicted]:
    """Each row predicted, with a word every now and then of how far it is."""
    for done, one in enumerate(predicted(rows, cores())):
        if done % EVERY == 0:
            tell(f"{one.row.table}", done, len(rows))
        yield one


def _document(
    found: Sequence[Predicted], by_table: Sequence[Score], by_stack: Sequence[Score], everything: Score
) -> dict[str, object]:
    """What --json writes: the rows in order, and the scores. Errors are shares, biases of them positive if too slow."""
    return {
        "rows": [
            {"id": p.row.id, "predicted_seconds": p.seconds, "predicted_seconds_unfitted": p.unfitted_seconds,
             "measured_seconds": p.row.step_seconds, "reason": p.reason}
            for p in found
        ],
        "tables": [asdict(score) for score in by_table],
        "stacks": [asdict(score) for score in by_stack],
        "all": asdict(everything),
    }  # fmt: skip
