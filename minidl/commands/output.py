"""The output of commands: tables for people, JSON for programs."""

import json
import math
import sys
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from minidl import files


def write_json(path: Path, document: dict) -> None:
    """Write `document` as JSON; a number that is not finite, which JSON lacks, becomes null."""
    files.write(path, json.dumps(_finite(document), indent=1, allow_nan=False) + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(console: Console, table: Table) -> None:
    """Print a table as narrow as the terminal, if that needs to cut no word; else its lines are longer, and wrap.

    No column is narrower than its min_width.
    """
    unlimited = console.options.update(max_width=sys.maxsize)
    for column in table.columns:
        sizes = [Measurement.get(console, unlimited, cell) for cell in (column.header, *column.cells)]
        column.min_width = max(column.min_width or 0, *(s.maximum if column.no_wrap else s.minimum for s in sizes))
    least = Measurement.get(console, unlimited, table).minimum
    if console.width < least:
        table.width = least
    console.print(table, crop=False, highlight=False)
