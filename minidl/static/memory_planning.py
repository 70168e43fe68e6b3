"""Memory planning: results that are never needed at the same time share memory."""

from dataclasses import dataclass

ALIGNMENT = 64  # bytes: a cache line


@dataclass(frozen=True)
class Lifetime:
    """A result of `nbytes` must be kept from node `first`, which writes it, to node `last`, both included."""

    nbytes: int
    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        """Whether both are needed at the same time."""
        return self.first <= other.last and other.first <= self.last


def assign_offsets(lifetimes: list[Lifetime]) -> tuple[list[int], int]:
    """The offset of each result in one block of memory, and the bytes of the block.

    Greedy by size (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", section 4.3):
    the largest first, each at the lowest offset at which it overlaps none that is needed at the same time.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for i in sorted(range(len(lifetimes)), key=lambda i: -lifetimes[i].nbytes):
        result, offset = lifetimes[i], 0
        others = (j for j in placed if result.overlaps(lifetimes[j]))
        for start, end in sorted((offsets[j], offsets[j] + _aligned(lifetimes[j].nbytes)) for j in others):
            if start >= offset + _aligned(result.nbytes):
                break
            offset = max(offset, end)
        offsets[i] = offset
        placed.append(i)
    return offsets, max((offsets[i] + _aligned(lifetimes[i].nbytes) for i in placed), default=0)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
