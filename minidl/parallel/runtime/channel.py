"""A one-way channel between two rows of the arena: a ring of message headers that one side writes and one reads."""

from collections import deque

import numpy as np

from minidl.arena import LINE, WORDS, Arena, Heap
from minidl.parallel.meetings import CHANNEL_MESSAGES as SLOTS  # of which the ring of headers has one for each

HEADER = 2 * WORDS  # words of one message: dtype, dimensions, offset of the data, then the shape
DTYPES = tuple(np.dtype(t) for t in ("float32", "float64", "int64", "bool", "int32", "uint8"))
MAX_DIMENSIONS = HEADER - 3


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
        if x.ndim > MAX_DIMENSIONS or x.dtype not in DTYPES:
            raise ValueError(f"cannot send an array of dtype {x.dtype} and {x.ndim} dimensions")
        while len(self.under_way) > self.count - self.words[self.read]:
            self.under_way.popleft()
        message = self.heap.empty(x.shape, x.dtype)
        np.copyto(message, x)
        self.under_way.append(message)
        header = self.headers + self.count % SLOTS * HEADER
        offset = self.arena.offset_in(self.src, message) if x.size else 0
        for i, word in enumerate((DTYPES.index(x.dtype), x.ndim, offset, *x.shape)):
            self.words[header + i] = word
        self.count += 1
        self.words[self.written] = self.count

    def get(self, target: np.ndarray | None = None) -> np.ndarray:
        """The next message, in `target` or as a new array; only when there is one."""
        header = self.headers + self.count % SLOTS * HEADER
        dtype, ndim, offset = self.words[header : header + 3]
        shape = tuple(self.words[header + 3 : header + 3 + ndim])
        message = self.arena.view(self.src, offset, shape, DTYPES[dtype])
        if target is None:
            target = message.copy()
        elif target.shape != shape or target.dtype != DTYPES[dtype]:
            raise ValueError(f"received shape {shape} of {DTYPES[dtype]} for a tensor {target.shape} of {target.dtype}")
        else:
            np.copyto(target, message)
        self.count += 1
        self.words[self.read] = self.count
        return target
