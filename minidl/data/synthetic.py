"""Random data of any shape, for benchmarks and tests."""

import numpy as np

from minidl import random
from minidl.data.datasets import ArrayDataset


def synthetic(samples: int, shape: tuple[int, ...] = (784,), classes: int = 10, seed: int = 0) -> ArrayDataset:
    """Random classification data for benchmarks: around one random centre per class, x float32 (*shape), y int64."""
    generator = random.generator(seed, "synthetic")
    centres = generator.standard_normal((classes, *shape), np.float32)
    y = generator.integers(classes, size=samples)
    x = generator.standard_normal((samples, *shape), np.float32)
    x += centres[y]
    return ArrayDataset(x, y)
