"""Data sets: anything with a length whose items are pairs (x, y) of arrays."""

from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from minidl import random

DIGITS_SPLIT_SEED = 0
DIGITS_TRAINING = 1437


class Dataset(Protocol):
    """`dataset[i]` is the pair (x, y) of sample i; `dataset[array of n indices]` a pair of arrays with n rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class ArrayDataset:
    """Samples that lie in two arrays: sample i is (x[i], y[i])."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        if len(x) != len(y):
            raise ValueError(f"ArrayDataset: x has {len(x)} samples, y has {len(y)}")
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[index], self.y[index]


def digits() -> tuple[ArrayDataset, ArrayDataset]:
    """1,437 training and 360 test images of handwritten digits, 8 × 8 pixels: x (1, 8, 8) float32 in [0, 1], y int64.

    The split is shuffled and always the same. Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
    Digits", UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49 (its test part), CC BY 4.0.
    """
    x, y = _digits()
    order = random.generator(DIGITS_SPLIT_SEED, "digits").permutation(len(x))
    train, test = order[:DIGITS_TRAINING], order[DIGITS_TRAINING:]
    return ArrayDataset(x[train], y[train]), ArrayDataset(x[test], y[test])


@cache
def _digits():
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"]
    return (images / np.float32(16)).astype(np.float32)[:, None], labels.astype(np.int64)


def synthetic(samples: int, shape: tuple[int, ...] = (784,), classes: int = 10, seed: int = 0) -> ArrayDataset:
    """Random classification data for benchmarks: around one random centre per class, x float32 (*shape), y int64."""
    generator = random.generator(seed, "synthetic")
    centres = generator.standard_normal((classes, *shape), np.float32)
    y = generator.integers(classes, size=samples)
    x = generator.standard_normal((samples, *shape), np.float32)
    x += centres[y]
    return ArrayDataset(x, y)
