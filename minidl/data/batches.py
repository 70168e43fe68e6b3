"""How an epoch is cut into global batches, and those into replicas and micro-batches: here and nowhere else."""

from collections.abc import Iterator

import numpy as np

from minidl import random


def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the samples 0 … length - 1 in an epoch: a permutation keyed by (seed, epoch)."""
    return random.generator(seed, "data", epoch).permutation(length)


def batch_indices(order: np.ndarray, batch: int, batch_size: int) -> np.ndarray:
    """The samples of global batch number `batch` of an epoch: a slice of `order`; the last one may be shorter."""
    return order[batch * batch_size : (batch + 1) * batch_size]


def batches_per_epoch(samples: int, batch_size: int, drop_last: bool = False) -> int:
    """How many global batches an epoch has; with `drop_last` without a last one that is shorter."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


def batches(order: np.ndarray, batch_size: int, drop_last: bool = False) -> Iterator[np.ndarray]:
    """All global batches of an epoch; with `drop_last` without a last one that is shorter."""
    for batch in range(batches_per_epoch(len(order), batch_size, drop_last)):
        yield batch_indices(order, batch, batch_size)


def split_batch(indices: np.ndarray, replicas: int, micro_batches: int) -> list[list[np.ndarray]]:
    """A global batch as one list per replica of its micro-batches: contiguous slices, sizes as even as it goes.

    Where it does not go evenly the first ones get one sample more; a micro-batch may be empty.
    """
    return [np.array_split(part, micro_batches) for part in np.array_split(indices, replicas)]
