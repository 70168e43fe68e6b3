"""Transforms one after another."""

from collections.abc import Callable, Sequence

import numpy as np

from minidl import random


class Compose:
    """Applies the transforms in order; they draw from one generator, one after another."""

    def __init__(self, transforms: Sequence[Callable]):
        for transform in transforms:
            if not callable(transform):
                raise TypeError(f"Compose needs functions of (x, generator), not a {type(transform).__name__}")
        self.transforms = list(transforms)
        self.random = any(getattr(transform, "random", True) for transform in self.transforms)

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        generator = generator or random.default_generator()
        for transform in self.transforms:
            x = transform(x, generator)
        return x
