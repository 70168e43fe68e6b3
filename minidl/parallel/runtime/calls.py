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


class Calls:
    """The different calls of a rank, each described once in its row, from byte `start` on.

    A call has a number there, and a digest of its description: collective, options, shape and dtype. Ranks that make
    the same call have the same digest; where they do not, each finds the other's description by its number.
    """

    BYTES = ENTRIES * TEXT_BYTES

    def __init__(self, arena: Arena, row: int, start: int):
        self.arena, self.row, self.start = arena, row, start
        self._known: dict[tuple, tuple[int, int]] = {}

    def find(self, name: str, x: np.ndarray | None, op: str, root: int) -> tuple[int, int]:
        """Digest and number of a call."""
        key = (name, op, root) if x is None else (name, op, root, x.shape, x.dtype.char)
        return self._known.get(key) or self._describe(key, name, x, op, root)

    def text(self, row: int, number: int) -> str:
        """The description of call `number` of the rank of `row`."""
        entry = self._entry(row, number)
        return bytes(entry).split(b"\0")[0].decode(errors="replace")

    def _describe(self, key: tuple, name: str, x: np.ndarray | None, op: str, root: int) -> tuple[int, int]:
        text = name + OPTIONS.get(name, "").format(op=op, root=root)
        if x is not None:
            text += f" of shape {x.shape} and {x.dtype}"
        encoded = text.encode()
        if len(self._known) == ENTRIES:
            self._known.clear()
        number = len(self._known)
        self._entry(self.row, number)[:] = encoded[: TEXT_BYTES - 1].ljust(TEXT_BYTES, b"\0")
        digest = int.from_bytes(blake2b(encoded, digest_size=8).digest(), "big") >> 1  # fits a signed word
        call = self._known[key] = digest, number
        return call

    def _entry(self, row: int, number: int) -> memoryview:
        return self.arena.view(row, self.start + number * TEXT_BYTES, (TEXT_BYTES,), np.uint8).data
