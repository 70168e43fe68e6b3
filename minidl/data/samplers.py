"""Samplers: which samples an epoch sees, and in what order."""

from collections.abc import Iterator, Sequence, Sized

import numpy as np

from minidl import random
from minidl.data.batches import epoch_order


class DistributedSampler:
    """The indices that replica `rank` of `num_replicas` sees in an epoch: every `num_replicas`-th, beginning at `rank`.

    With drop_last the samples left over are dropped, otherwise the first ones are repeated, so that all replicas see
    equally many. Call `set_epoch` before each epoch for another order.
    """

    def __init__(
        self, dataset: Sized, num_replicas: int, rank: int, shuffle: bool = True, seed: int = 0, drop_last: bool = False
    ):
        if not 0 <= rank < num_replicas:
            raise ValueError(f"DistributedSampler: rank {rank} is not one of {num_replicas} replicas")
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        samples = len(self.dataset)
        return samples // self.num_replicas if self.drop_last else -(-samples // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        samples = len(self.dataset)
        order = epoch_order(samples, self.seed, self.epoch) if self.shuffle else np.arange(samples)
        mine = np.resize(order, len(self) * self.num_replicas)[self.rank :: self.num_replicas]
        return iter(mine.tolist())


class WeightedRandomSampler:
    """`num_samples` random indices an epoch; index i is drawn with probability weights[i] / sum(weights).

    With replacement each draw is independent; without, an index drawn is out of the game and the others keep their
    weights. Every iteration is another draw, keyed by (seed, epoch).
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True, seed: int = 0):
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1 or not np.isfinite(self.weights).all() or not (self.weights >= 0).all():
            raise ValueError("WeightedRandomSampler: weights must be a sequence of finite numbers of at least 0")
        positive = np.count_nonzero(self.weights)
        if num_samples < 1 or not positive or not replacement and num_samples > positive:
            raise ValueError(
                f"WeightedRandomSampler: cannot draw {num_samples} samples with{'' if replacement else 'out'} "
                f"replacement from {positive} of positive weight"
            )
        self.num_samples, self.replacement, self.seed, self.epoch = num_samples, replacement, seed, 0

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        generator = random.generator(self.seed, "weighted", self.epoch)
        self.epoch += 1
        if self.replacement:
            drawn = generator.choice(len(self.weights), self.num_samples, p=self.weights / self.weights.sum())
        else:
            # Of clocks that ring at rates w, the next to ring is i with probability w_i over the sum of those that have
            # not rung (Efraimidis and Spirakis 2006).
            with np.errstate(divide="ignore"):
                rings = generator.standard_exponential(len(self.weights)) / self.weights
            drawn = np.argsort(rings)[: self.num_samples]
        return iter(drawn.tolist())
