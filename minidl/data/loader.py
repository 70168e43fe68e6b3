"""DataLoader: a data set as batches of tensors; DistributedSampler: one replica's part of each batch."""

from collections.abc import Iterator

import numpy as np

from minidl.creation import tensor
from minidl.data.batches import batches, epoch_order
from minidl.data.datasets import Dataset
from minidl.tensor import Tensor


class DistributedSampler:
    """The indices that replica `rank` of `replicas` sees in an epoch: every `replicas`-th sample, beginning at `rank`.

    With drop_last the samples left over are dropped, otherwise the first ones are repeated, so that all replicas see
    equally many. Call `set_epoch` before each epoch for another order.
    """

    def __init__(
        self, length: int, replicas: int, rank: int, seed: int = 0, shuffle: bool = True, drop_last: bool = False
    ):
        if not 0 <= rank < replicas:
            raise ValueError(f"DistributedSampler: rank {rank} is not one of {replicas} replicas")
        self.length, self.replicas, self.rank = length, replicas, rank
        self.seed, self.shuffle, self.drop_last, self.epoch = seed, shuffle, drop_last, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def indices(self) -> np.ndarray:
        order = epoch_order(self.length, self.seed, self.epoch) if self.shuffle else np.arange(self.length)
        each = self.length // self.replicas if self.drop_last else -(-self.length // self.replicas)
        return np.resize(order, each * self.replicas)[self.rank :: self.replicas]

    def __len__(self) -> int:
        return self.length // self.replicas if self.drop_last else -(-self.length // self.replicas)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())


class DataLoader:
    """Iterates over a data set in batches (x, y) of tensors on the CPU.

    shuffle: another order in each epoch, keyed by (seed, epoch); an iteration over the loader is an epoch.
    sampler: gives the indices instead, a `DistributedSampler` say.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int = 1, shuffle: bool = False, seed: int = 0, drop_last: bool = False,
        sampler: DistributedSampler | None = None,
    ):  # fmt: skip
        if batch_size < 1:
            raise ValueError(f"DataLoader: batch_size {batch_size}, it must be at least 1")
        if shuffle and sampler is not None:
            raise ValueError("DataLoader: shuffle=True has no effect with a sampler, which gives the order itself")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.seed, self.drop_last, self.sampler, self.epoch = seed, drop_last, sampler, 0

    def __len__(self) -> int:
        """The number of batches."""
        samples = len(self.dataset if self.sampler is None else self.sampler)
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.sampler is not None:
            order = np.fromiter(self.sampler, np.int64)
        elif self.shuffle:
            order = epoch_order(len(self.dataset), self.seed, self.epoch)
        else:
            order = np.arange(len(self.dataset))
        self.epoch += 1
        for indices in batches(order, self.batch_size, self.drop_last):
            x, y = self.dataset[indices]
            yield tensor(x), tensor(y)
