"""What the ranks of a group call, compared at the price of one word."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from minidl.arena import LINE, Arena

NUMBER_BITS = 10
ENTRIES = 1 << NUMBER_BITS  # different calls that a rank remembers; then it describes them anew
TEXT_BYTES = 2 * LINE
Call = tuple[str, str, tuple[int, ...] | None, str]  # name, options in words, shape (None: not said), dtype.char


class Calls(dict):
    """The different calls of a rank, each described once in its row.

    `calls[call]` is its digest, which is the same on all ranks that make the same call, and its number. Where the
    digests differ each rank finds the other's description by its number. start: the byte of the row that they begin at.
    """

    BYTES = ENTRIES * TEXT_BYTES

    def __init__(self, arena: Arena, row: int, start: int):
        super().__init__()
        self.arena, self.row, self.start = arena, row, start

    def __missing__(self, call: Call) -> tuple[int, int]:
        encoded = described(call).encode()
        if len(self) == ENTRIES:
            self.clear()
        number = len(self)
        self._entry(self.row, number)[:] = encoded[: TEXT_BYTES - 1].ljust(TEXT_BYTES, b"\0")
        self[call] = digest(encoded), number
        return self[call]

    def text(self, row: int, number: int) -> str:
        """The description of call `number` of the rank of `row`."""
        return bytes(self._entry(row, number)).split(b"\0")[0].decode(errors="replace")

    def _entry(self, row: int, number: int) -> memoryview:
        return self.arena.view(row, self.start + number * TEXT_BYTES, (TEXT_BYTES,), np.uint8).data


def digest(encoded: bytes) -> int:
    """A number for a description; it fits a signed word."""
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "big") >> 1


def described(call: Call) -> str:
    name, options, shape, char = call
    text = f"{name}({options})" if options else name
    return text if shape is None else f"{text} of shape {shape} and {np.dtype(char)}"


def with_sizes(options: str, sizes: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The options and the shape of a call whose ranks bring `sizes` rows each: -1 stands for a length of its own."""
    if sizes is None:
        return options, shape
    return ", ".join(filter(None, (options, f"sizes={sizes}"))), (-1, *shape[1:])
