"""DataLoader: a data set as batches of tensors."""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

import numpy as np

from minidl import processes
from minidl.arena import Arena
from minidl.creation import tensor
from minidl.data.batches import batches, batches_per_epoch, epoch_order
from minidl.data.datasets import Dataset
from minidl.data.fetch import Fetcher
from minidl.data.loader_worker import LoaderWorker
from minidl.data.snapshot import Snapshot
from minidl.kernels import for_device
from minidl.nested import map_leaves
from minidl.ops.shape import pin_memory
from minidl.tensor import Tensor
from minidl.validation import check_count


class DataLoader:
    """Iterates over a data set in batches of tensors on the CPU: pairs (x, y), or whatever form the samples have.

    shuffle: another order in each epoch, keyed by (seed, epoch); an iteration over the loader is an epoch.
    sampler: gives the indices instead, a `DistributedSampler` say; batch_sampler: those of each batch.
    drop_last: leave out a last batch that is shorter.
    num_workers: processes that make the batches, each `prefetch_factor` of them ahead; 0: made here when asked for.
    The batches are the same to the last bit for any number, random transforms included (see `TransformedDataset`).
    collate_fn: makes a batch of a list of samples; `default_collate` by itself.
    pin_memory: give the batches in pinned memory, so that `x.to("cuda", non_blocking=True)` copies one beside the
    computation with the batch before.

    `epoch` is the number of the next one: set it to go on where a training was left.

    Workers start with an iteration, from the data set as it then is, and have ended when the iterator is exhausted,
    closed or dropped. Their batches lie in shared memory that is used again when a batch has been dropped. Raises
    WorkerError, with the worker's traceback, where one fails.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int = 1, shuffle: bool = False, *, seed: int = 0, drop_last: bool = False,
        sampler: Collection[int] | None = None, batch_sampler: Collection[Sequence[int]] | None = None,
        num_workers: int = 0, prefetch_factor: int = 2, collate_fn: Callable[[list], object] | None = None,
        pin_memory: bool = False,
    ):  # fmt: skip
        counts = (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("prefetch_factor", prefetch_factor, 1),
        )
        for name, value, least in counts:
            check_count(f"DataLoader: {name}", value, least)
        if shuffle and sampler is not None:
            raise ValueError("DataLoader: shuffle=True has no effect with a sampler, which gives the order itself")
        if batch_sampler is not None and (batch_size != 1 or shuffle or drop_last or sampler is not None):
            raise ValueError(
                "DataLoader: batch_size, shuffle, drop_last and sampler have no effect with a batch_sampler"
            )
        if collate_fn is not None and not callable(collate_fn):
            raise TypeError(f"DataLoader: collate_fn must be a function of a list, not a {type(collate_fn).__name__}")
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.drop_last, self.sampler, self.batch_sampler = drop_last, sampler, batch_sampler
        self.collate_fn, self.pin_memory = collate_fn, pin_memory
        if pin_memory:
            for_device("cuda")
        self.num_workers, self.prefetch_factor, self.epoch = num_workers, prefetch_factor, 0

    def __len__(self) -> int:
        """The number of batches."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        samples = len(self.dataset if self.sampler is None else self.sampler)
        return batches_per_epoch(samples, self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator:
        epoch, indices = self.epoch, self._indices()
        self.epoch += 1
        fetcher = Fetcher(self.dataset, self.collate_fn, self.seed)
        if self.num_workers:
            made = _from_workers(fetcher, epoch, indices, self.num_workers, self.prefetch_factor)
        else:
            made = _made_here(fetcher, epoch, indices)
        return _pinned(made) if self.pin_memory else made

    def _indices(self) -> Iterable[np.ndarray]:
        """The indices of each batch of this epoch."""
        if self.batch_sampler is not None:
            return (np.asarray(chosen, np.int64) for chosen in self.batch_sampler)
        if self.sampler is not None:
            order = np.fromiter(self.sampler, np.int64)
        elif self.shuffle:
            order = epoch_order(len(self.dataset), self.seed, self.epoch)
        else:
            order = np.arange(len(self.dataset))
        return batches(order, self.batch_size, self.drop_last)


def _pinned(made: Iterator) -> Iterator:
    for batch in made:
        yield map_leaves(lambda leaf: pin_memory(leaf) if isinstance(leaf, Tensor) else leaf, batch)
        del batch


def _made_here(fetcher: Fetcher, epoch: int, indices: Iterable[np.ndarray]) -> Iterator:
    for number, chosen in enumerate(indices):
        batch = fetcher.batch(epoch, number, chosen)
        yield map_leaves(lambda leaf: tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, batch)


def _from_workers(fetcher: Fetcher, epoch: int, indices: Iterable[np.ndarray], count: int, ahead: int) -> Iterator:
    """The batches in order, made by `count` processes that take turns and are `ahead` batches ahead each."""
    workers: list[LoaderWorker] = []
    with ExitStack() as cleanup:
        snapshot = Snapshot(fetcher)
        cleanup.callback(os.close, snapshot.fd)
        arena = Arena(count)
        cleanup.callback(os.close, arena.fd)
        cleanup.callback(lambda: processes.end([worker.process for worker in workers], grace_seconds=0))
        for rank in range(count):
            workers.append(LoaderWorker(rank, arena, snapshot, epoch))
        numbered = enumerate(indices)
        asked: deque[LoaderWorker] = deque()
        for number, chosen in islice(numbered, count * ahead):
            asked.append(workers[number % count])
            asked[-1].ask(number, chosen)
        while asked:
            batch = asked.popleft().answer()
            for number, chosen in islice(numbered, 1):
                asked.append(workers[number % count])
                asked[-1].ask(number, chosen)
            yield batch
            del batch  # or its memory would be taken until the next one is there
