"""A worker process of a DataLoader: the loader's end and the process's own.

The loader sends the number of a batch, its indices and what is free again in shared memory. The worker makes the batch,
lays its arrays in its row of an arena, and answers with where they lie, in the order in which it was asked.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import threading
from collections import deque
from dataclasses import dataclass

import cloudpickle
import numpy as np

from minidl.arena import Arena, Heap
from minidl.creation import tensor
from minidl.data import snapshot
from minidl.messages import Messages
from minidl.nested import map_leaves
from minidl.packing import packed_error, unpacked, unpacked_error
from minidl.processes import ChildProcess, WorkerError, news
from minidl.tensor import Tensor


@dataclass(frozen=True)
class Place:
    """Where an array lies in the worker's row of the arena."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


class LoaderWorker:
    """The loader's end: starts the process, asks it for batches and takes them.

    fetcher: the snapshot of a `Fetcher`. A batch is of tensors that lie in shared memory; its place is used again when
    these and all that shares memory with them have been dropped.
    """

    def __init__(self, rank: int, arena: Arena, fetcher: snapshot.Snapshot, epoch: int):
        self.rank, self.arena = rank, arena
        name = f"DataLoader worker {rank} of {arena.rows}"
        self.process = ChildProcess("minidl.data.loader_worker", name, rank, (arena.fd, fetcher.fd))
        self.process.send("setup", pickle.dumps((arena.rows, arena.row_bytes, rank, fetcher.places, epoch)))
        # Arrays are dropped at any moment, in the middle of a message too: they are told of in the next one.
        self._free: deque[int] = deque()
        self._answers: deque = deque()

    def ask(self, number: int, indices: np.ndarray) -> None:
        """Have the worker make batch `number` of the samples `indices`."""
        free = [self._free.popleft() for _ in range(len(self._free))]
        self.process.send("ask", pickle.dumps((number, indices, free)))

    def answer(self):
        """The batch asked for first of those not taken yet. WorkerError if the worker raised or died."""
        while not self._answers:
            self._answers.extend(message for _, message in news([self.process]))
        message = self._answers.popleft()
        if message is None:
            raise WorkerError(f"{self.process.name} {self.process.how_it_ended()}", self.rank)
        kind, content = message
        if kind == "error":
            raise unpacked_error(self.process, content)
        return map_leaves(self._tensor, unpacked(self.process, "batch", content))

    def _tensor(self, leaf):
        if isinstance(leaf, Place):
            return Tensor(self.arena.lend(self.rank, leaf.offset, leaf.shape, leaf.dtype, self._free.append))
        return tensor(leaf) if isinstance(leaf, np.ndarray) else leaf


def main(loader: Messages, arena_fd: int, snapshot_fd: int) -> None:
    """The worker's life: it ends with an error, or when the loader's end of the connection is closed."""
    try:
        rows, row_bytes, rank, places, epoch = pickle.loads(loader.receive()[1])
    except (EOFError, OSError):
        return  # the loader has ended before it said what to do
    asked: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(loader, asked), daemon=True).start()
    try:
        shelf = _Shelf(Arena(rows, row_bytes, arena_fd), rank)
        fetcher = snapshot.load(snapshot_fd, places)
        while True:
            number, indices, free = asked.get()
            shelf.clear(free)
            batch = map_leaves(shelf.lay, fetcher.batch(epoch, number, indices))
            loader.send("batch", cloudpickle.dumps(batch))
    except BaseException as error:
        with contextlib.suppress(OSError):  # the loader has stopped listening
            loader.send("error", packed_error(error))


def _listen(loader: Messages, asked: queue.SimpleQueue) -> None:
    """Take what the loader sends as soon as it comes, so that it never waits for a batch to be finished."""
    try:
        while True:
            asked.put(pickle.loads(loader.receive()[1]))
    except (EOFError, OSError):
        os._exit(1)


class _Shelf:
    """The arrays of this worker that the loader still has."""

    def __init__(self, arena: Arena, row: int):
        self.arena, self.row = arena, row
        self.heap = Heap(arena, row, 0)
        self.arrays: dict[int, np.ndarray] = {}

    def lay(self, leaf):
        """Copy an array into shared memory; its place instead of it. Anything else goes with the message."""
        if not isinstance(leaf, np.ndarray) or leaf.dtype.hasobject or not leaf.size:
            return leaf
        array = self.heap.empty(leaf.shape, leaf.dtype)
        array[...] = leaf
        offset = self.arena.offset_in(self.row, array)
        self.arrays[offset] = array
        return Place(offset, leaf.shape, leaf.dtype)

    def clear(self, offsets: list[int]) -> None:
        for offset in offsets:
            del self.arrays[offset]
