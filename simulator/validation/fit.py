"""Constants fitted to published steps: by what one software stack takes longer on one kind of device.

They are the only figures of the simulator that are fitted to whole steps and to all of them, so they stand in one file,
with the tables that they come from and the error of each row where the constant is fitted to the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from simulator.validation.predicted import Predicted

HEADER = """\
# By what a step of a software stack takes longer on a device than the simulator has it without: one constant for each
# stack and device, the median of measured / unfitted over the rows of the tables named. `error`: mean absolute error of
# these rows, each predicted with the constant of the others; none where there is a single row.
# Made by `python -m simulator validate FILE --fit PATH`, from the published steps of these tables.
"""


@dataclass(frozen=True)
class Constant:
    """Of a stack on a device. rows: to how many it was fitted. error: mean of each, from the others; None for one."""

    stack: str
    device: str
    value: float
    tables: tuple[str, ...]
    rows: int
    error: float | None


def fit(found: Sequence[Predicted]) -> list[Constant]:
    """A constant for each stack on each device, in order of their names. ValueError where nothing was measured."""
    alike: dict[tuple[str, str], list[Predicted]] = defaultdict(list)
    for p in found:
        if p.unfitted_seconds is not None and p.row.step_seconds is not None:
            alike[p.row.stack, p.device].append(p)
    if not alike:
        raise ValueError("no row was both measured and simulated: there is nothing to fit")
    return [_constant(stack, device, rows) for (stack, device), rows in sorted(alike.items())]


def _constant(stack: str, device: str, rows: Sequence[Predicted]) -> Constant:
    ratios = [p.row.step_seconds / p.unfitted_seconds for p in rows]
    tables = tuple(dict.fromkeys(p.row.table for p in rows))
    return Constant(stack, device, median(ratios), tables, len(rows), left_out_error(ratios))


def left_out_error(ratios: Sequence[float]) -> float | None:
    """Mean absolute error of rows that take `ratios` times the unfitted time, each fitted to the others."""
    if len(ratios) == 1:
        return None
    others = ((ratio, [*ratios[:place], *ratios[place + 1 :]]) for place, ratio in enumerate(ratios))
    return fmean(abs(median(rest) / ratio - 1) for ratio, rest in others)


def declaration(constants: Sequence[Constant]) -> str:
    """The constants as the file that simulator/stacks reads."""
    return HEADER + "".join(map(_declared, constants))


def _declared(constant: Constant) -> str:
    tables = ", ".join(f'"{table}"' for table in constant.tables)
    error = "" if constant.error is None else f"error = {constant.error:.4f}\n"
    return (
        f'\n[[constant]]\nstack = "{constant.stack}"\ndevice = "{constant.device}"\nvalue = {constant.value:.4f}\n'
        f"tables = [{tables}]\nrows = {constant.rows}\n{error}"
    )
