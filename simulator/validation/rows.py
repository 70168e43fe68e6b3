"""Published measurements: one row for each training step that somebody measured, read from a CSV file."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import takewhile
from pathlib import Path

TAG = re.compile(r"\w+=\w+")


@dataclass(frozen=True)
class Row:
    """A measured step of training: on what, with which sizes and which software, and how long it took.

    None is what the source does not state, or what does not apply: step_seconds, where a step is only to be predicted.
    table: where it was published. stack, system: names of simulator/stacks and simulator/catalog. hidden is not always
    heads × head_dim. ffn: of one expert. gated_mlp: three matrices instead of two. data × tensor × pipeline × context
    are the devices; expert lies inside data. interleave: chunks of each rank. micro_batch: samples, of a replica;
    global_batch: of an optimizer step. precision: of the large products. zero: stage. data_overlap: gradients are
    reduced beside the backward pass. note: `key=value` tags first, then remarks, parted by semicolons.
    """

    id: str
    table: str
    source: str
    stack: str
    system: str
    devices: int | None
    model: str
    layers: int | None
    hidden: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    ffn: int | None
    gated_mlp: int | None
    seq: int | None
    vocab: int | None
    experts: int | None
    experts_per_token: int | None
    data: int | None
    tensor: int | None
    pipeline: int | None
    interleave: int | None
    context: int | None
    expert: int | None
    micro_batch: int | None
    global_batch: int | None
    precision: str
    recompute: str
    sequence_parallel: int | None
    zero: int | None
    optimizer: str
    data_overlap: int | None
    step_seconds: float | None
    note: str

    @cached_property
    def tags(self) -> Mapping[str, str]:
        """The `key=value` tags with which the note begins."""
        return dict(part.split("=") for part in takewhile(TAG.fullmatch, re.split("; *", self.note)))

    def size(self, name: str) -> int:
        """The column `name` where it says how many ranks or chunks there are; 1 where it says nothing."""
        return getattr(self, name) or 1

    def need(self, *names: str) -> tuple[int, ...]:
        """The columns `names`. ValueError where one says nothing."""
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"{name} is not stated")
        return tuple(getattr(self, name) for name in names)


COLUMNS = tuple(field.name for field in fields(Row))
KINDS = {field.name: field.type for field in fields(Row)}  # as they are written: annotations are texts here
SWITCHES = ("gated_mlp", "sequence_parallel", "data_overlap", "zero")  # numbers that may be 0


def read(path: Path) -> list[Row]:
    """The rows of a CSV file whose first line names the columns of Row, in any order.

    OSError where it cannot be read, ValueError, which names row and column, where it is not such a file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = list(_rows(path, csv.reader(file, strict=True)))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text in UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from None
    if not found:
        raise ValueError(f"{path} has no rows: it needs a line of column names, and a line for each measured step")
    return found


def _rows(path: Path, lines: Iterator[list[str]]) -> Iterator[Row]:
    names = next(lines, [])
    if missing := [name for name in COLUMNS if name not in names]:
        raise ValueError(f"{path} has no column {missing[0]!r}: its first line must name {', '.join(COLUMNS)}")
    for place, name in enumerate(names):
        if name not in COLUMNS or name in names[:place]:
            what = "a column twice" if name in COLUMNS else "an unknown column"
            raise ValueError(f"{path} has {what}, {name!r}: the columns are {', '.join(COLUMNS)}")
    for number, cells in enumerate((cells for cells in lines if cells), 1):
        where = f"{path}: row {number}"
        if len(cells) != len(names):
            raise ValueError(f"{where} has {len(cells)} cells, the first line names {len(names)} columns")
        by_name = dict(zip(names, cells, strict=True))
        yield Row(**{name: _cell(f"{where}, column {name}", name, by_name[name].strip()) for name in COLUMNS})


def _cell(where: str, name: str, text: str) -> str | int | float | None:
    if KINDS[name] == "str":
        if not text and name in ("id", "table"):
            raise ValueError(f"{where} is empty")
        return text
    if not text:
        return None
    whole = KINDS[name].startswith("int")
    least = 0 if name in SWITCHES else 1
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = -1
    if whole and value < least:
        raise ValueError(f"{where}: {text!r} is not a whole number of at least {least}")
    if not whole and not 0 < value < math.inf:
        raise ValueError(f"{where}: {text!r} is not a positive number")
    return value
