"""A one-way channel between two rows of the arena: a ring of message headers that one side writes and one reads."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from minidl.arena import LINE, WORDS, Arena, Heap
from minidl.parallel.meetings import CHANNEL_MESSAGES as SLOTS  # of which the ring of headers has one for each

HEADER = 2 * WORDS  # words of one message: offset of the data, dtype, dimensions, then the shape
NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = tuple(np.dtype(t) for t in (*NUMBERS, "bool"))
MAX_DIMENSIONS = HEADER - 3


def header(name: str, x: np.ndarray) -> tuple[int, ...]:
    """dtype, dimensions and shape of `x` as whole numbers. ValueError if it cannot be described so. name: the call."""
    if x.ndim > MAX_DIMENSIONS or x.dtype not in DTYPES:
        raise ValueError(f"cannot {name} an array of dtype {x.dtype} and {x.ndim} dimensions")
    return DTYPES.index(x.dtype), x.ndim, *x.shape


def read_header(words: Sequence[int]) -> tuple[np.dtype, tuple[int, ...]]:
    """dtype and shape that a header, at the beginning of `words`, says."""
    dtype, ndim, *shape = words
    return DTYPES[dtype], tuple(shape[:ndim])


def channel_bytes() -> int:
    """Bytes of a channel's lines in a row: the count its owner raises, and the headers of its messages."""
    return LINE + SLOTS * HEADER * 8


class Channel:
    """From row `src` to row `dst`; `heap` is that of the process that uses it, one of the two.

    The sender copies a message into its own row, writes a header and raises its count `written`; the receiver copies it
    out and raises its count `read`. Each process keeps its own count, so that no word has two writers.
    """

    def __init__(self, arena: Arena, heap: Heap, src: int, dst: int, written_at: int, read_at: int):
        self.arena, self.heap, self.src = arena, heap, src
        self.words = arena.words
        self.written = arena.word(src, written_at)
        self.read = arena.word(dst, read_at) + 1
        self.headers = self.written + WORDS
        self.count = 0  # messages this side has written or read
        self.under_way: deque[np.ndarray] = deque()  # messages not yet read, which must keep their memory

    def room(self) -> tuple[int, int]:
        """The word of the receiver, and the count which that must reach, for one more message to have room."""
        return self.read, self.count - SLOTS + 1

    def message(self) -> tuple[int, int]:
        """The word of the sender, and the count which that must reach, for the next message to be there."""
        return self.written, self.count + 1

    def put(self, x: np.ndarray) -> None:
        """Send a copy of `x`; only when there is room."""
        described = header("send", x)
        while len(self.under_way) > self.count - self.words[self.read]:
            self.under_way.popleft()
        message = self.heap.empty(x.shape, x.dtype)
        np.copyto(message, x)
        self.under_way.append(message)
        first = self.headers + self.count % SLOTS * HEADER
        offset = self.arena.offset_in(self.src, message) if x.size else 0
        for i, word in enumerate((offset, *described)):
            self.words[first + i] = word
        self.count += 1
        self.words[self.written] = self.count

    def get(self, target: np.ndarray | None = None) -> np.ndarray:
        """The next message, in `target` or as a new array; only when there is one."""
        first = self.headers + self.count % SLOTS * HEADER
        dtype, shape = read_header(self.words[first + 1 : first + HEADER])
        message = self.arena.view(self.src, self.words[first], shape, dtype)
        if target is None:
            target = message.copy()
        elif target.shape != shape or target.dtype != dtype:
            raise ValueError(f"received shape {shape} of {dtype} for a tensor {target.shape} of {target.dtype}")
        else:
            np.copyto(target, message)
        self.count += 1
        self.words[self.read] = self.count
        return target
