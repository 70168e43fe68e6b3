"""Cutout: hiding squares of images (..., height, width)."""

import numpy as np

from minidl import random


class Cutout:
    """Sets `holes` squares of `length` pixels a side to 0; their centres lie anywhere in the image, all equally likely.

    A square may reach beyond the border. Source: T. DeVries and G. W. Taylor, "Improved Regularization of Convolutional
    Neural Networks with Cutout", arXiv 1708.04552 (2017), section 3.
    """

    random = True

    def __init__(self, length: int, holes: int = 1):
        if length < 1 or holes < 1:
            raise ValueError(f"Cutout: length={length} and holes={holes}, both must be at least 1")
        self.length, self.holes = length, holes

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        generator = generator or random.default_generator()
        x = x.copy()
        for _ in range(self.holes):
            top, left = (generator.integers(size) - self.length // 2 for size in x.shape[-2:])
            x[..., max(0, top) : top + self.length, max(0, left) : left + self.length] = 0
        return x
