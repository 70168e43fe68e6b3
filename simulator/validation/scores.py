"""How far off predictions are, by table and by stack, beside the null model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from simulator.validation.null import null_errors
from simulator.validation.predicted import Predicted
from simulator.validation.rows import Row


@dataclass(frozen=True)
class Errors:
    """Relative errors of some rows. mape: mean of their absolute values. bias: their mean. worst: whose is largest."""

    mape: float
    bias: float
    median: float
    worst: str
    worst_error: float


@dataclass(frozen=True)
class Score:
    """Of the rows of one table, or of one stack.

    rows: all of them. simulated: those with a prediction. null, null_by_system: mean absolute errors of one constant
    utilisation of the table, and of one of each (stack, system, precision) in it, each row predicted from the others;
    None where there are none. unfitted, fitted: errors where predicted and measured, None where nothing is.
    """

    name: str
    rows: int
    simulated: int
    null: float | None
    null_by_system: float | None
    unfitted: Errors | None
    fitted: Errors | None

    @property
    def coverage(self) -> float:
        return self.simulated / self.rows


def scores(found: Sequence[Predicted], name: Callable[[Row], str]) -> list[Score]:
    """A score for each name that rows have, in the order of the rows."""
    rows, best = [p.row for p in found], [p.best_seconds for p in found]
    null = null_errors(rows, best, lambda row: row.table)
    by_system = null_errors(rows, best, lambda row: (row.table, row.stack, row.system, row.precision))
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(name(row), []).append(place)
    return [_score(name, [found[n] for n in places], [null[n] for n in places], [by_system[n] for n in places])
            for name, places in groups.items()]  # fmt: skip


def overall(found: Sequence[Predicted]) -> Score:
    """Of all rows together."""
    return scores(found, lambda row: "all")[0]


def _score(name: str, found: list[Predicted], null: list[float | None], by_system: list[float | None]) -> Score:
    return Score(
        name, len(found), sum(p.seconds is not None for p in found), _mape(null), _mape(by_system),
        _errors(found, False), _errors(found, True),
    )  # fmt: skip


def _mape(errors: Sequence[float | None]) -> float | None:
    there = [abs(error) for error in errors if error is not None]
    return fmean(there) if there else None


def _errors(found: Sequence[Predicted], fitted: bool) -> Errors | None:
    there = [(error, p.row.id) for p in found if (error := p.error(fitted)) is not None]
    if not there:
        return None
    absolute = [abs(error) for error, _ in there]
    worst_error, worst = max(there, key=lambda pair: abs(pair[0]))
    return Errors(fmean(absolute), fmean(error for error, _ in there), median(absolute), worst, worst_error)
