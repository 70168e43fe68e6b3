"""Bringing numbers to a common scale: bytes to [0, 1], channels and columns to mean 0 and standard deviation 1."""

from collections.abc import Sequence

import numpy as np


class ToFloat:
    """Pixels of uint8 from 0 to 255 as float32 in [0, 1]; floats are left alone."""

    random = False

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        if x.dtype.kind == "f":
            return x
        if x.dtype != np.uint8:
            raise TypeError(f"ToFloat needs an image of uint8 or of floats, not of {x.dtype}")
        return x.astype(np.float32) / np.float32(255)


class Normalize:
    """(x - mean) / std for each channel of images (..., channels, height, width); as many of both as channels."""

    random = False

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (np.asarray(values, np.float64).reshape(-1, 1, 1) for values in (mean, std))
        if self.mean.shape != self.std.shape:
            raise ValueError(f"Normalize: {len(self.mean)} means and {len(self.std)} standard deviations")
        if not (self.std > 0).all():
            raise ValueError(f"Normalize: std={std!r}, standard deviations must be above 0")

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        if x.dtype.kind != "f":
            raise TypeError(f"Normalize needs an image of floats, not of {x.dtype}: use ToFloat before")
        if x.ndim < 3 or x.shape[-3] != len(self.mean):
            raise ValueError(f"Normalize: {len(self.mean)} means for an image of shape {x.shape}, one for each channel")
        return (x - self.mean.astype(x.dtype)) / self.std.astype(x.dtype)


class Standardize:
    """(x - mean) / std with mean and standard deviation of given data, of each column or whatever `dim` leaves.

    data: (samples, ...), floats; NaNs count for nothing. dim: the dimensions averaged over, of which the samples are
    one: 0 for a table, (0, 2, 3) for the channels of images. The standard deviation divides by n; where it is 0, what
    was constant becomes 0. `inverse` brings back the original.
    """

    random = False

    def __init__(self, data: np.ndarray, dim: int | tuple[int, ...] = 0):
        dim = (dim,) if isinstance(dim, int) else tuple(dim)
        if 0 not in dim:
            raise ValueError(f"Standardize: dim={dim} leaves out 0, the dimension of the samples")
        self.mean = np.nanmean(data, dim, np.float64, keepdims=True)[0]
        std = np.nanstd(data, dim, np.float64, keepdims=True)[0]
        self.std = np.where(std > 0, std, 1.0)

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        if x.dtype.kind != "f":
            raise TypeError(f"Standardize needs floats, not {x.dtype}")
        return ((x - self.mean) / self.std).astype(x.dtype)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        return (x * self.std + self.mean).astype(x.dtype)
