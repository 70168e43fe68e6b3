"""What a collective is given: its reductions, how rows are divided among ranks, and what is refused before it begins.

Rows lie along dimension 0.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np

from minidl.kernels.meta import MetaArray
from minidl.tensor import Tensor

REDUCTIONS = {"sum": np.add, "mean": np.add, "max": np.maximum, "min": np.minimum}  # of a mean, `finish` is missing


def finish(op: str, total: np.ndarray, size: int) -> None:
    """Make the sum of `size` ranks' arrays their mean, in place, where that is what `op` says."""
    if op == "mean":
        np.divide(total, size, out=total)


def split_sizes(rows: int, parts: int) -> tuple[int, ...]:
    """The rows of each of `parts` nearly equal parts: the first ones get one more, as `np.array_split` cuts."""
    least, more = divmod(rows, parts)
    return (least + 1,) * more + (least,) * (parts - more)


def row_elements(x) -> int:
    """The elements of one row of `x`."""
    return math.prod(x.shape[1:])


def check_array(name: str, x) -> None:
    if not isinstance(x, (Tensor, np.ndarray, MetaArray)):
        raise TypeError(f"{name} needs a Tensor or an array, not a {type(x).__name__}")
    if x.dtype.kind not in "biufc":
        raise TypeError(f"{name} needs numbers, not an array of {x.dtype}")


def check_rows(name: str, x, size: int) -> None:
    """ValueError if `x` has no dimension along which `size` ranks could divide or join it."""
    check_array(name, x)
    if not x.shape:
        raise ValueError(f"{name} over {size} ranks cannot divide dimension 0 of a tensor of shape {x.shape}")


def check_reduction(name: str, op: str, x) -> None:
    """ValueError for an unknown reduction, TypeError for the mean of anything but floating-point numbers."""
    if op not in REDUCTIONS:
        raise ValueError(f"unknown reduction {op!r}: choose one of {', '.join(REDUCTIONS)}")
    if op == "mean":
        check_array(name, x)
        if x.dtype.kind != "f":
            raise TypeError(f"{name} needs floating-point numbers for a mean, not an array of {x.dtype}")


def check_out(name: str, out, shape: tuple[int, ...], x) -> None:
    check_array(name, out)
    if out.shape != shape or out.dtype != x.dtype:
        raise ValueError(f"{name} needs an out of shape {shape} and {x.dtype}, not {out.shape} and {out.dtype}")
    array = out.data if isinstance(out, Tensor) else out
    if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
        raise ValueError(f"{name} needs a contiguous out")


def check_overlap(name: str, whole, part, start: int) -> None:
    """ValueError if `part` shares memory with `whole` elsewhere than from row `start` on, where this rank's part is."""
    whole, part = (x.data if isinstance(x, Tensor) else x for x in (whole, part))
    if isinstance(whole, np.ndarray) and np.may_share_memory(whole, part):
        own = whole[start : start + len(part)]
        if own.__array_interface__["data"] != part.__array_interface__["data"]:
            raise ValueError(f"{name} needs an out that overlaps with x at this rank's part of it, or nowhere")


def given_sizes(name: str, what: str, sizes: Sequence[int], ranks: int) -> tuple[int, ...]:
    """The argument `what`, rows of each rank, as a tuple. ValueError unless it is a number of rows for each rank."""
    try:
        found = tuple(operator.index(rows) for rows in sizes)
    except TypeError:
        found = ()
    if len(found) != ranks or min(found) < 0:
        raise ValueError(f"{name} needs {what} of {ranks} whole numbers, the rows of each rank, not {sizes!r}")
    return found


def check_splits(name: str, group: str, sent: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> None:
    """RuntimeError if a rank sends another more or fewer rows than that expects.

    sent[a][b]: the rows that rank a sends to rank b. expected[b][a]: those that b expects of a. group: its name.
    """
    for source, counts in enumerate(sent):
        for to, rows in enumerate(counts):
            if rows != expected[to][source]:
                raise RuntimeError(
                    f"ranks of the group {group!r} disagree: in {name} rank {source} sends {rows} rows to rank {to}, "
                    f"which expects {expected[to][source]}"
                )
