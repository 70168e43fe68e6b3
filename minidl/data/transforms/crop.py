"""Cutting a window out of images (..., height, width)."""

import numpy as np

from minidl import random


class CenterCrop:
    """The window of `size` (one number, or height and width) in the middle."""

    random = False

    def __init__(self, size: int | tuple[int, int]):
        self.size = _pair(size)

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        free = _room(self, x)
        return _window(x, (round(free[0] / 2), round(free[1] / 2)), self.size)


class RandomCrop:
    """A window of `size` (one number, or height and width) somewhere in the image, all places being equally likely.

    padding: pixels of value `fill` put around the image before.
    """

    random = True

    def __init__(self, size: int | tuple[int, int], padding: int = 0, fill: float = 0):
        self.size, self.padding, self.fill = _pair(size), padding, fill
        if padding < 0:
            raise ValueError(f"RandomCrop: padding={padding} is negative")

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        generator = generator or random.default_generator()
        if self.padding:
            around = [(0, 0)] * (x.ndim - 2) + [(self.padding, self.padding)] * 2
            x = np.pad(x, around, constant_values=self.fill)
        free = _room(self, x)
        return _window(x, (generator.integers(free[0] + 1), generator.integers(free[1] + 1)), self.size)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"size={size!r} is neither a number of pixels nor a height and a width, of at least 1")
    return pair


def _room(crop: CenterCrop | RandomCrop, x: np.ndarray) -> tuple[int, int]:
    """By how many pixels the image is higher and wider than the window."""
    free = x.shape[-2] - crop.size[0], x.shape[-1] - crop.size[1]
    if min(free) < 0:
        name = type(crop).__name__
        raise ValueError(f"{name}: a window of {crop.size} does not fit in {x.shape[-2:]}, the image with its padding")
    return free


def _window(x: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    return x[..., corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
