"""Turning images (..., height, width) about their centre."""

import math

import numpy as np

from minidl import random


class RandomRotation:
    """Turns by an angle drawn evenly from (-degrees, degrees), or from the two given; outside the image is `fill`."""

    random = True

    def __init__(self, degrees: float | tuple[float, float], fill: float = 0):
        self.degrees = (-degrees, degrees) if isinstance(degrees, (int, float)) else tuple(degrees)
        if len(self.degrees) != 2 or self.degrees[0] > self.degrees[1]:
            raise ValueError(f"RandomRotation: degrees={degrees!r}, give one of at least 0 or the least and the most")
        self.fill = fill

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        generator = generator or random.default_generator()
        return rotate(x, generator.uniform(*self.degrees), self.fill)


def rotate(x: np.ndarray, degrees: float, fill: float = 0) -> np.ndarray:
    """The image turned counter-clockwise about its centre, its size kept: each pixel between the four it comes from.

    (Bilinear interpolation; pixels outside the image count as `fill`.)
    """
    if x.dtype.kind != "f":
        raise TypeError(f"rotate needs an image of floats, not of {x.dtype}: use ToFloat before")
    height, width = x.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    down, right = np.mgrid[:height, :width] - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2  # from the centre
    row = cos * down + sin * right + (height - 1) / 2  # where the pixel comes from
    column = cos * right - sin * down + (width - 1) / 2
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    lower, righter = (row - top).astype(x.dtype), (column - left).astype(x.dtype)  # the weights of those neighbours
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)], constant_values=fill)

    def neighbour(row, column):
        return padded[..., np.clip(row, -1, height) + 1, np.clip(column, -1, width) + 1]

    above = neighbour(top, left) * (1 - righter) + neighbour(top, left + 1) * righter
    below = neighbour(top + 1, left) * (1 - righter) + neighbour(top + 1, left + 1) * righter
    return above * (1 - lower) + below * lower
