"""A data set whose samples are transformed when they are asked for, reproducibly."""

from collections.abc import Callable

import numpy as np

from minidl import random
from minidl.data.datasets import Dataset, set_epoch


class TransformedDataset:
    """A data set with `transform(x, generator)` in place of each sample's x; y stays.

    generator: a NumPy generator keyed by (seed, epoch, index of the sample), so that a sample is transformed the same
    way whoever asks for it and in whatever order. A `DataLoader` tells the epoch. A transform whose attribute `random`
    is False gets all the rows of an array of indices at once and None for the generator; any other, row after row.

    Of transforms on top of each other, each by a data set of its own, every one needs another seed: `Compose` them
    instead.
    """

    def __init__(self, dataset: Dataset, transform: Callable, seed: int = 0):
        if not callable(transform):
            raise TypeError(f"TransformedDataset needs a function of (x, generator), not a {type(transform).__name__}")
        self.dataset, self.transform, self.seed, self.epoch = dataset, transform, seed, 0

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        set_epoch(self.dataset, epoch)

    def __getitem__(self, index: int | np.ndarray):
        x, y = self.dataset[index]
        if not getattr(self.transform, "random", True):
            return self.transform(x, None), y
        if not isinstance(index, np.ndarray):
            return self.transform(x, self._generator(index)), y
        rows = [self.transform(row, self._generator(i)) for row, i in zip(x, index, strict=True)]
        return np.stack(rows) if rows else x, y

    def _generator(self, index: int) -> np.random.Generator:
        return random.generator(self.seed, "transform", self.epoch, int(index) % len(self))
