"""A profile as a table of 80 columns, in which blocks that are alike and follow one another are one row."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table

from minidl.units import duration, scaled

if TYPE_CHECKING:
    from minidl.profiling import Profile, Row

CAPTION = "FLOPs, bytes moved, time: forward above backward"
FOLDED = "×n: n blocks alike; the numbers are those of each, the times their mean"


def profile_table(profile: Profile) -> Table:
    """Two lines a row; without the columns of times where nothing was measured."""
    rows = [*folded(profile.rows), (profile.total, 1)]
    alike = any(count > 1 for _, count in rows)
    table = Table(
        box=None, pad_edge=False, caption=f"{CAPTION}\n{FOLDED}" if alike else CAPTION, caption_justify="left"
    )  # fmt: skip
    table.add_column("block\n  output")
    timed = profile.total.forward_seconds is not None
    for name in ("parameters", "FLOPs", "moved", "kept", *(("time", "FLOP/s") if timed else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for row, count in rows:
        if row is profile.total:
            table.add_section()
        table.add_row(*_cells(row, count, timed))
    return table


def folded(rows: Sequence[Row], level: int = 0) -> Iterator[tuple[Row, int]]:
    """Rows, and for how many blocks each stands: alike in all but names and times, which are the mean.

    A row of part 3 of block 1 is alike those of parts 3 of the next blocks if all of these blocks' rows are. level: of
    the names, down to which all rows have the same.
    """
    blocks = [list(block) for _, block in groupby(rows, key=lambda row: row.name.split(".")[: level + 1])]
    for _, group in groupby(blocks, key=lambda block: [_but_for_name_and_time(row, level) for row in block]):
        run = list(group)
        merged = [_merged(alike, level) for alike in zip(*run, strict=True)]
        deeper = any(row.name.count(".") > level for row in merged)
        for row, count in folded(merged, level + 1) if deeper else ((row, 1) for row in merged):
            yield row, count * len(run)


def _but_for_name_and_time(row: Row, level: int) -> Row:
    inner = ".".join(row.name.split(".")[level + 1 :])
    return replace(row, name=inner, forward_seconds=None, backward_seconds=None)


def _merged(rows: Sequence[Row], level: int) -> Row:
    """One row for those of blocks that are alike, numbered from the first to the last at this level of the name."""
    first, last = (row.name.split(".") for row in (rows[0], rows[-1]))
    if len(rows) > 1:
        first[level] += f"…{last[level]}"
    return replace(
        rows[0], name=".".join(first), forward_seconds=_mean([row.forward_seconds for row in rows]),
        backward_seconds=_mean([row.backward_seconds for row in rows]),
    )  # fmt: skip


def _mean(times: Sequence[float | None]) -> float | None:
    known = [seconds for seconds in times if seconds is not None]
    return statistics.mean(known) if len(known) == len(times) else None


def _cells(row: Row, count: int, timed: bool) -> Iterator[str]:
    times = f" ×{count}" if count > 1 else ""
    yield f"{row.name} {row.kind}".strip() + f"{times}\n  {'×'.join(map(str, row.output))}"
    yield f"{row.parameters:,}"
    yield f"{scaled(row.forward_flops)}\n{scaled(row.backward_flops)}"
    yield f"{scaled(row.forward_bytes, 'B')}\n{scaled(row.backward_bytes, 'B')}"
    yield "" if row.kept_bytes is None else scaled(row.kept_bytes, "B")
    if not timed:
        return
    forward, backward = row.forward_seconds, row.backward_seconds
    if forward is None or backward is None:
        yield from ("", "")
        return
    yield f"{duration(forward)}\n{duration(backward)}"
    work = row.forward_flops + row.backward_flops
    yield scaled(work / (forward + backward)) if forward + backward and work else ""
