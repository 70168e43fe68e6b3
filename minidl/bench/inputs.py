"""What both sides of `bench train` compute on: fixed numbers. This file imports neither minidl nor PyTorch."""

import numpy as np

CHAIN = 1000  # ops of W5


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Normal random numbers, float32."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape, np.float32) for shape in shapes]


def classes(count: int, *shape: int) -> np.ndarray:
    """Random classes, int64."""
    return np.random.default_rng(1).integers(count, size=shape)
