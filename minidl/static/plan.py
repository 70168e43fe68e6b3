"""Buffer planning: values that are never needed at the same time share memory."""

from dataclasses import dataclass

ALIGNMENT = 64  # bytes: a cache line


@dataclass(frozen=True)
class Buffer:
    """What must be kept from node `first`, which writes it, to node `last`, both included."""

    nbytes: int
    first: int
    last: int


def plan(buffers: list[Buffer]) -> tuple[list[int], int]:
    """The offset of each buffer in one block of memory, and the bytes of the block.

    Greedy by size (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", section 4.3):
    the largest first, each at the lowest offset at which it overlaps none that lives at the same time.
    """
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for i in sorted(range(len(buffers)), key=lambda i: -buffers[i].nbytes):
        buffer, offset = buffers[i], 0
        others = (j for j in placed if buffers[j].first <= buffer.last and buffer.first <= buffers[j].last)
        for start, end in sorted((offsets[j], offsets[j] + _aligned(buffers[j].nbytes)) for j in others):
            if start >= offset + _aligned(buffer.nbytes):
                break
            offset = max(offset, end)
        offsets[i] = offset
        placed.append(i)
    return offsets, max((offsets[i] + _aligned(buffers[i].nbytes) for i in placed), default=0)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
