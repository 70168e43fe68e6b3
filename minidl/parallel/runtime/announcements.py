"""What the ranks of a group call, compared at the price of one word."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from minidl.arena import LINE, Arena

NUMBER_BITS = 10
ENTRIES = 1 << NUMBER_BITS  # different calls that a rank remembers; then it describes them anew
TEXT_BYTES = 2 * LINE
OPTIONS = {
    "all_reduce": "({op})",
    "reduce_scatter": "({op})",
    "reduce": "({op}, dst={root})",
    "broadcast": "(src={root})",
}


class Calls(dict):
    """The different calls of a rank, each described once in its row: a name, or (name, op, root, shape, dtype.char).

    `calls[call]` is its digest, which is the same on all ranks that make the same call, and its number. Where the
    digests differ each rank finds the other's description by its number. start: the byte of the row that they begin at.
    """

    BYTES = ENTRIES * TEXT_BYTES

    def __init__(self, arena: Arena, row: int, start: int):
        super().__init__()
        self.arena, self.row, self.start = arena, row, start

    def __missing__(self, call: str | tuple) -> tuple[int, int]:
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


def described(call: str | tuple) -> str:
    """A name, or (name, op, root, shape, dtype.char), in words."""
    if isinstance(call, str):
        return call
    name, op, root, shape, char = call
    return f"{name}{OPTIONS.get(name, '').format(op=op, root=root)} of shape {shape} and {np.dtype(char)}"
