"""Rows of published measurements, made up by hand."""

import csv
from pathlib import Path

from simulator.validation.rows import COLUMNS, Row, read

SMALL = {
    "id": "small", "table": "made-up", "source": "nobody", "stack": "default", "system": "dgx-a100", "devices": 8,
    "model": "gpt", "layers": 2, "hidden": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "ffn": 256, "gated_mlp": 0,
    "seq": 32, "vocab": 128, "data": 2, "tensor": 2, "pipeline": 2, "interleave": 1, "context": 1, "micro_batch": 2,
    "global_batch": 16, "precision": "bf16", "recompute": "none", "sequence_parallel": 0, "zero": 0,
    "optimizer": "adam", "data_overlap": 1, "step_seconds": 0.5,
}  # fmt: skip


def written(folder: Path, *changes: dict, columns=COLUMNS) -> Path:
    """A file of rows that are SMALL but for these changes."""
    path = folder / "steps.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**SMALL, **change} for change in changes)
    return path


def row(folder: Path, **changes) -> Row:
    """SMALL, but for these changes, read from a file."""
    return read(written(folder, changes))[0]
