"""Initialisation: recipes that draw a whole parameter from a generator, in float64, before it is cast and cut.

A parameter keeps its recipe, so that a rank can make only the parameters of its stage and only its shard of each.
"""

import math
from collections.abc import Callable

import numpy as np

Recipe = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def constant(value: float) -> Recipe:
    return lambda generator, shape: np.full(shape, value)


def uniform(bound: float) -> Recipe:
    """Uniform in [-bound, bound)."""
    return lambda generator, shape: generator.uniform(-bound, bound, shape)


def normal(std: float) -> Recipe:
    return lambda generator, shape: generator.normal(0, std, shape)


def fan_in_uniform(fan_in: int) -> Recipe:
    """PyTorch's default for linear and convolution layers: uniform within 1/sqrt(fan_in)."""
    return uniform(1 / math.sqrt(fan_in) if fan_in else 0.0)
