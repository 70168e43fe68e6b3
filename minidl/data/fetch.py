"""Making a batch: the same one in whatever process, whatever that process has made before."""

from collections.abc import Callable

import numpy as np

from minidl import random
from minidl.data.collate import default_collate
from minidl.data.datasets import Dataset, set_epoch
from minidl.dtypes import dtype_of
from minidl.nested import leaves, map_leaves
from minidl.tensor import Tensor


class Fetcher:
    """Makes batches of a data set's samples.

    collate_fn: makes a batch of a list of samples. None: `default_collate`, where the data set does not give the very
    same batch when it is asked for an array of indices, which is faster.
    """

    def __init__(self, dataset: Dataset, collate_fn: Callable | None, seed: int):
        self.dataset, self.collate, self.seed = dataset, collate_fn or default_collate, seed
        self._takes_arrays = None if collate_fn is None else False  # None: not known yet

    def batch(self, epoch: int, number: int, indices: np.ndarray):
        """Batch `number` of an epoch, the samples `indices`: arrays, or tuples, lists and dicts of arrays.

        What draws from the default generator meanwhile gets one that is keyed by (seed, epoch, number).
        """
        set_epoch(self.dataset, epoch)
        if self._takes_arrays is None and len(np.unique(indices)) > 1:
            with random.drawing_from(random.generator(self.seed, "probe")):
                self._takes_arrays = self._probe(np.unique(indices)[:2])
        with random.drawing_from(random.generator(self.seed, "batch", epoch, number)):
            batch = self.dataset[indices] if self._takes_arrays else self.collate(self._samples(indices))
        return map_leaves(_array, batch)

    def _samples(self, indices: np.ndarray) -> list:
        return [self.dataset[int(i)] for i in indices]

    def _probe(self, two: np.ndarray) -> bool:
        """Whether asking for an array of indices gives what asking for one after another does.

        A data set that was written for single indices raises, or gives something else: of three samples of which two
        are the same, what it computes by mistake is hardly ever the batch.
        """
        indices = two[[0, 0, 1]]
        try:
            batch = self.dataset[indices]
        except Exception:
            return False
        first, second = self._samples(two)
        ours, theirs = list(leaves(default_collate([first, first, second]))), list(leaves(batch))
        return len(ours) == len(theirs) and all(_same(a, b) for a, b in zip(ours, theirs, strict=True))


def _same(a, b) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _array(leaf):
    """A tensor as its array; an array of numbers must have a dtype that tensors have."""
    if isinstance(leaf, Tensor):
        return leaf.numpy()
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc":
        dtype_of(leaf.dtype)
    return leaf
