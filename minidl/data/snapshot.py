"""An object as it is now, handed to other processes through shared memory."""

import mmap
import pickle

import cloudpickle

from minidl.arena import LINE, Arena


class Snapshot:
    """An object in anonymous shared memory, from which every process that gets `fd` and `places` makes its own.

    The memory of its arrays is not copied until a process writes to it, and then for that process alone.
    """

    def __init__(self, content: object):
        buffers: list[pickle.PickleBuffer] = []
        head = cloudpickle.dumps(content, protocol=5, buffer_callback=buffers.append)  # the arrays stay outside
        parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
        self.places: list[tuple[int, int]] = []  # where each part begins, and its bytes
        end = 0
        for part in parts:
            self.places.append((end, part.nbytes))
            end += -(-part.nbytes // LINE) * LINE
        arena = Arena(1, end)
        self.fd = arena.fd
        for (start, size), part in zip(self.places, parts, strict=True):
            arena.map[start : start + size] = part


def load(fd: int, places: list[tuple[int, int]]) -> object:
    """The object of a snapshot. Functions and classes of the user's script come by value, as cloudpickle does."""
    memory = memoryview(mmap.mmap(fd, sum(places[-1]), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE))
    head, *buffers = (memory[start : start + size] for start, size in places)
    return pickle.loads(head, buffers=buffers)
