"""What a collective costs, and what all of its algorithms share: pieces, reductions, messages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidl.parallel.group import ProcessGroup

UFUNCS = {"sum": np.add, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True)
class Cost:
    """A collective takes alpha * steps + beta * nbytes: what lies on its critical path.

    steps: messages that wait for one another. nbytes: the bytes in them. A rank sends one message at a time, and
    receives one at a time.
    """

    steps: int
    nbytes: float


def rounds(size: int) -> int:
    """How often a number must double to get from 1 to `size` or beyond: ceil(log2(size))."""
    return (size - 1).bit_length()


def reduction(op: str) -> np.ufunc:
    """The elementwise function of a reduction's name. ValueError for a mean: that is a sum which somebody divides."""
    if op not in UFUNCS:
        raise ValueError(f"unknown reduction {op!r}: choose one of {', '.join(UFUNCS)}")
    return UFUNCS[op]


def pieces_of(x: np.ndarray, count: int) -> list[np.ndarray]:
    """Views of `count` nearly equal pieces of `x`, one after the other."""
    if not x.flags.c_contiguous:
        raise ValueError(f"a collective needs a contiguous array, this one of shape {x.shape} is not")
    return np.array_split(x.reshape(-1), count)


def received(group: ProcessGroup, like: np.ndarray, src: int) -> np.ndarray:
    return group.recv(np.empty_like(like), src)
