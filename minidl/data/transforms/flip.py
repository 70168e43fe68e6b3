"""Mirroring images (..., height, width)."""

import numpy as np

from minidl import random


class RandomHorizontalFlip:
    """Left becomes right, with probability p."""

    random = True
    axis = -1

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p={p} is no probability")
        self.p = p

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        generator = generator or random.default_generator()
        return np.flip(x, self.axis) if generator.random() < self.p else x


class RandomVerticalFlip(RandomHorizontalFlip):
    """Top becomes bottom, with probability p."""

    axis = -2
