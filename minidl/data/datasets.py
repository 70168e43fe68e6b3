"""Data sets: anything with a length whose items are pairs (x, y); those in arrays, parts, chains and random splits."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from minidl import random
from minidl.tensor import Tensor
from minidl.units import counted


class Dataset(Protocol):
    """`dataset[i]` is the pair (x, y) of sample i; `dataset[array of n indices]` a pair of arrays with n rows.

    A `DataLoader` also takes data sets that know only the first, and samples of other forms. A data set that is not the
    same in each epoch has a method `set_epoch(epoch)`, which is called before its samples are asked for.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def set_epoch(dataset: Dataset, epoch: int) -> None:
    """Tell the data set which epoch begins, if it wants to know."""
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)


class ArrayDataset:
    """Samples that lie in two arrays or tensors: sample i is (x[i], y[i]). PyTorch calls it TensorDataset."""

    def __init__(self, x: np.ndarray | Tensor, y: np.ndarray | Tensor):
        self.x, self.y = np.asarray(x), np.asarray(y)
        if self.x.ndim == 0 or self.y.ndim == 0:
            raise ValueError(
                f"ArrayDataset: x of shape {self.x.shape} and y of shape {self.y.shape}, both need samples"
            )
        if len(self.x) != len(self.y):
            raise ValueError(f"ArrayDataset: x has {len(self.x)} samples, y has {len(self.y)}")

    def __repr__(self) -> str:
        x, y = (f"{array.shape[1:]} {array.dtype}" for array in (self.x, self.y))
        return f"<ArrayDataset of {counted(len(self), 'sample')}: x {x}, y {y}>"

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[index], self.y[index]


class Subset:
    """The samples `indices` of a data set, in that order."""

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray):
        self.dataset, self.indices = dataset, np.asarray(indices, np.int64)
        _check_indices("Subset", self.indices, len(dataset))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int | np.ndarray):
        chosen = self.indices[index]
        return self.dataset[chosen if isinstance(chosen, np.ndarray) else int(chosen)]

    def set_epoch(self, epoch: int) -> None:
        set_epoch(self.dataset, epoch)


class ConcatDataset:
    """Data sets one after another: the samples of the first, then those of the second and so on."""

    def __init__(self, datasets: Sequence[Dataset]):
        if not datasets:
            raise ValueError("ConcatDataset: no data sets given, it needs at least one")
        self.datasets = list(datasets)
        self.ends = np.cumsum([len(d) for d in self.datasets])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int | np.ndarray):
        indices = np.asarray(index)
        _check_indices("ConcatDataset", indices, len(self))
        indices = np.where(indices < 0, indices + len(self), indices)
        owners = np.searchsorted(self.ends, indices, side="right")
        starts = np.concatenate([[0], self.ends])
        if indices.ndim == 0:
            return self.datasets[owners][int(indices - starts[owners])]
        order = np.argsort(owners, kind="stable")  # the rows as they come, one data set after another
        asked = np.unique(owners) if len(owners) else [0]
        rows = [self.datasets[owner][indices[owners == owner] - starts[owner]] for owner in asked]
        back = np.argsort(order)
        return tuple(np.concatenate(column)[back] for column in zip(*rows, strict=True))

    def set_epoch(self, epoch: int) -> None:
        for dataset in self.datasets:
            set_epoch(dataset, epoch)


def _check_indices(name: str, indices: np.ndarray, length: int) -> None:
    wrong = indices[(indices < -length) | (indices >= length)]
    if wrong.size:
        raise IndexError(f"{name}: index {wrong.flat[0]} in a data set of {length} samples")


def random_split(dataset: Dataset, lengths: Sequence[int | float], seed: int = 0) -> list[Subset]:
    """The data set cut into parts of the given lengths that share no sample, which samples being drawn from `seed`.

    lengths: numbers of samples that sum to all of them, or fractions that sum to 1; with fractions every part gets the
    whole part of its share, and the samples left over go one each to the first parts.
    """
    total = len(dataset)
    sizes = list(lengths)
    if math.isclose(sum(sizes), 1):
        sizes = [math.floor(total * fraction) for fraction in lengths]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
    if sum(sizes) != total or any(size < 0 or size != int(size) for size in sizes):
        raise ValueError(f"random_split: lengths {list(lengths)} sum neither to the {total} samples nor to 1")
    order = random.generator(seed, "split").permutation(total)
    return [Subset(dataset, part) for part in np.split(order, np.cumsum(sizes[:-1], dtype=int))]
