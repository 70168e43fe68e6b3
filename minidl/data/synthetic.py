"""Random data that can be learnt, for benchmarks and tests."""

import numpy as np

from minidl import random
from minidl.data.datasets import ArrayDataset
from minidl.data.transformed import TransformedDataset
from minidl.data.transforms import ToFloat

IMAGES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
SCALE = 4  # pixels over which the pattern of a class is smooth


def synthetic(samples: int, shape: tuple[int, ...] = (784,), classes: int = 10, seed: int = 0) -> ArrayDataset:
    """Random classification data for benchmarks: around one random centre per class, x float32 (*shape), y int64."""
    generator = random.generator(seed, "synthetic")
    centres = generator.standard_normal((classes, *shape), np.float32)
    y = generator.integers(classes, size=samples)
    x = generator.standard_normal((samples, *shape), np.float32)
    x += centres[y]
    return ArrayDataset(x, y)


def synthetic_images(
    name: str, train: int = 1000, test: int = 200, seed: int = 0
) -> tuple[TransformedDataset, TransformedDataset]:
    """Random images in place of `mnist` or `cifar10`, of the same shapes and types; `train` and `test` of them.

    Each of the ten classes has a smooth random pattern, to which every image adds noise.
    """
    if name not in IMAGES:
        raise ValueError(f"synthetic_images: unknown data set {name!r}, choose one of {', '.join(IMAGES)}")
    channels, height, width = IMAGES[name]
    generator = random.generator(seed, "synthetic", name)
    coarse = generator.integers(64, 192, (10, channels, height // SCALE, width // SCALE))
    patterns = coarse.repeat(SCALE, -2).repeat(SCALE, -1)  # (10, channels, height, width)

    def part(samples: int) -> TransformedDataset:
        y = generator.integers(10, size=samples)
        x = patterns[y] + generator.integers(-64, 64, (samples, channels, height, width))
        return TransformedDataset(ArrayDataset(x.astype(np.uint8), y), ToFloat())

    return part(train), part(test)
