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
from multiprocessing.connection import Connection

import cloudpickle
import numpy as np

from minidl.arena import Arena, Heap
from minidl.creation import tensor
from minidl.data import snapshot
from minidl.processes import ChildProcess, WorkerError, end_with_parent, with_traceback
from minidl.tensor import Tensor
from minidl.tree import map_leaves


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
        self.process = ChildProcess("minidl.data.worker", (arena.fd, fetcher.fd))
        self.process.send(pickle.dumps((arena.rows, arena.row_bytes, rank, fetcher.places, epoch)))
        # Arrays are dropped at any moment, in the middle of a message too: they are told of in the next one.
        self._free: deque[int] = deque()

    def ask(self, number: int, indices: np.ndarray) -> None:
        """Have the worker make batch `number` of the samples `indices`."""
        free = [self._free.popleft() for _ in range(len(self._free))]
        self.process.send(pickle.dumps((number, indices, free)))

    def answer(self):
        """The batch asked for first of those not taken yet. WorkerError if the worker raised or died."""
        who = f"DataLoader worker {self.rank} of {self.arena.rows}"
        try:
            kind, content = pickle.loads(self.process.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            raise WorkerError(f"{who} {self.process.how_it_ended()}", self.rank) from None
        if kind == "error":
            text, error = content
            raise WorkerError(f"{who} raised:\n\n{text}", self.rank) from error
        return map_leaves(self._tensor, content)

    def _tensor(self, leaf):
        if isinstance(leaf, Place):
            return Tensor(self.arena.lend(self.rank, leaf.offset, leaf.shape, leaf.dtype, self._free.append))
        return tensor(leaf) if isinstance(leaf, np.ndarray) else leaf


def main(connection_fd: int, arena_fd: int, snapshot_fd: int) -> None:
    """The worker's life: it ends with an error, or when the loader's end of the connection is closed."""
    connection = Connection(connection_fd)
    try:
        rows, row_bytes, rank, places, epoch = pickle.loads(connection.recv_bytes())
    except (EOFError, OSError):
        return  # the loader has ended before it said what to do
    end_with_parent()
    asked: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, asked), daemon=True).start()
    shelf = _Shelf(Arena(rows, row_bytes, arena_fd), rank)
    try:
        fetcher = snapshot.load(snapshot_fd, places)
        while True:
            number, indices, free = asked.get()
            shelf.clear(free)
            batch = map_leaves(shelf.lay, fetcher.batch(epoch, number, indices))
            connection.send_bytes(cloudpickle.dumps(("batch", batch)))
    except BaseException as error:
        with contextlib.suppress(OSError):  # the loader has stopped listening
            connection.send_bytes(cloudpickle.dumps(("error", with_traceback(error))))


def _listen(connection: Connection, asked: queue.SimpleQueue) -> None:
    """Take what the loader sends as soon as it comes, so that it never waits for a batch to be finished."""
    try:
        while True:
            asked.put(pickle.loads(connection.recv_bytes()))
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
