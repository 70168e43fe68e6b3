"""Scores of predicted measurements as tables: on a terminal, and in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.table import Table

from minidl.units import counted
from simulator.commands.shared_output import plain_table
from simulator.validation.predicted import Predicted
from simulator.validation.scores import Errors, Score

NAMED = 3  # rows of those that were not simulated for the same reason
NONE = "-"
EXPLAINED = """\
Errors are of the predicted step time, in percent. `rows`: how many, and of how many a step was predicted, where these
are not all. `null`: mean absolute error of the null model, one constant utilisation of each table, each row predicted
from the others; `by system`: one for each stack, system and precision of a table. `without`: mean absolute error and
bias (mean error; negative: predicted too fast) with no constant. `fitted`: with the constant of that stack on that
device, in simulator/stacks/constants.toml; its bias, the median of the absolute errors, and the worst row. `error`
there is of rows that were left out when the constant was fitted."""
PAGE = """\
# Published measurements, predicted

Made by `python -m simulator validate steps.csv --markdown validation.md` from published measurements of training steps:
{rows}, of which {simulated} were simulated. How a row becomes a model, a plan, a cluster and a software stack is in
`simulator/validation/cases.py`.

{explained}

{tables}
"""


def score_table(what: str, parts: Sequence[Score]) -> Table:
    """A line for each score, in 80 columns."""
    table = plain_table(1)
    for name in (what, "rows", "null", "by sys", "without", "bias", "fitted", "bias", "median", "worst"):
        table.add_column(name, justify="right" if table.columns else "left")
    for part in parts:
        table.add_row(part.name, *_cells(part))
    return table


def worst_rows(parts: Sequence[Score]) -> Iterator[str]:
    """The worst row of each score, a line each."""
    for part in parts:
        if part.fitted:
            yield f"  {part.name}: {part.fitted.worst} ({part.fitted.worst_error:+.0%})"


def reasons(found: Sequence[Predicted]) -> Iterator[str]:
    """Why rows were not simulated: for each reason a line that names some of them."""
    by_reason: dict[str, list[str]] = {}
    for p in found:
        if p.reason is not None:
            by_reason.setdefault(p.reason, []).append(p.row.id)
    for reason, rows in by_reason.items():
        more = f" and {counted(len(rows) - NAMED, 'other')}" if len(rows) > NAMED else ""
        yield f"  {', '.join(rows[:NAMED])}{more}: {reason}"


def page(found: Sequence[Predicted], everything: Score, **parts: Sequence[Score]) -> str:
    """All of it in Markdown. parts: scores by what they are of."""
    tables = [_markdown(what, [*scores, everything]) for what, scores in parts.items()]
    if left_out := list(reasons(found)):
        tables.append("Not simulated:\n\n" + "\n".join(f"- {line.strip()}" for line in left_out))
    return PAGE.format(
        rows=counted(everything.rows, "row"), simulated=f"{everything.simulated:,}",
        explained=textwrap.fill(" ".join(EXPLAINED.split()), 120), tables="\n\n".join(tables),
    )  # fmt: skip


def _markdown(what: str, parts: Sequence[Score]) -> str:
    names = (what, "rows", "null", "by system", "without", "bias", "fitted", "bias", "median", "worst", "worst row")
    lines = [names, ("---", *("--:",) * 9, "---")]
    lines += [(part.name, *_cells(part), part.fitted.worst if part.fitted else NONE) for part in parts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(part: Score) -> tuple[str, ...]:
    rows = f"{part.rows}" if part.simulated == part.rows else f"{part.simulated}/{part.rows}"
    return rows, _percent(part.null), _percent(part.null_by_system), *_errors(part.unfitted)[:2], *_errors(part.fitted)


def _errors(errors: Errors | None) -> tuple[str, ...]:
    """Mean absolute error, bias, median and worst error."""
    if errors is None:
        return (NONE,) * 4
    signed = (f"{100 * error:+.0f}" for error in (errors.bias, errors.worst_error))
    bias, worst = signed
    return _percent(errors.mape), bias, _percent(errors.median), worst


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"
