"""Changing the colours of images (..., channels, height, width) of floats in [0, 1], as torchvision does."""

import numpy as np

from minidl import random

GREY = np.array([0.2989, 0.587, 0.114]).reshape(3, 1, 1)  # of red, green and blue: ITU-R BT.601


class ColorJitter:
    """Changes brightness, contrast and saturation by factors, and the hue by a shift, in random order.

    A factor is drawn evenly from (1 - value, 1 + value), but not below 0; the shift from (-hue, hue), where hue is at
    most 0.5 and 1 is the whole circle of colours. In images with one channel saturation and hue change nothing.
    """

    random = True

    def __init__(self, brightness: float = 0, contrast: float = 0, saturation: float = 0, hue: float = 0):
        for name, value in {"brightness": brightness, "contrast": contrast, "saturation": saturation}.items():
            if value < 0:
                raise ValueError(f"ColorJitter: {name}={value} is negative")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"ColorJitter: hue={hue} is not between 0 and 0.5")
        changes = {
            adjust_brightness: (max(0, 1 - brightness), 1 + brightness),
            adjust_contrast: (max(0, 1 - contrast), 1 + contrast),
            adjust_saturation: (max(0, 1 - saturation), 1 + saturation),
            adjust_hue: (-hue, hue),
        }
        self.changes = [(change, bounds) for change, bounds in changes.items() if bounds[0] < bounds[1]]

    def __call__(self, x: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        generator = generator or random.default_generator()
        for i in generator.permutation(len(self.changes)):
            change, bounds = self.changes[i]
            x = change(x, generator.uniform(*bounds))
        return x


def adjust_brightness(x: np.ndarray, factor: float) -> np.ndarray:
    """0 is black, 1 the image itself."""
    return _blend(x, np.zeros((), x.dtype), factor)


def adjust_contrast(x: np.ndarray, factor: float) -> np.ndarray:
    """0 is the mean grey of the image everywhere, 1 the image itself."""
    return _blend(x, _grey(x).mean((-3, -2, -1), keepdims=True), factor)


def adjust_saturation(x: np.ndarray, factor: float) -> np.ndarray:
    """0 is the image in grey, 1 the image itself."""
    return _blend(x, _grey(x), factor)


def adjust_hue(x: np.ndarray, shift: float) -> np.ndarray:
    """Every colour moved on by `shift` of the circle of colours, at the same saturation and value (HSV)."""
    if _channels(x) == 1:
        return x
    red, green, blue = np.moveaxis(x, -3, 0)  # each (..., height, width)
    value = x.max(-3)
    chroma = value - x.min(-3)
    span = np.where(chroma > 0, chroma, 1)
    hue = np.select(  # in sixths of the circle
        [value == red, value == green], [(green - blue) / span, 2 + (blue - red) / span], 4 + (red - green) / span
    )
    hue = hue + x.dtype.type(6 * shift)
    # Of a channel whose colour lies `offset` sixths from red: J. Foley et al., Computer Graphics, HSV to RGB.
    distances = [np.mod(offset + hue, 6) for offset in (5, 3, 1)]
    return np.stack([value - chroma * np.clip(np.minimum(d, 4 - d), 0, 1) for d in distances], -3)


def _channels(x: np.ndarray) -> int:
    if x.dtype.kind != "f" or x.ndim < 3 or x.shape[-3] not in (1, 3):
        raise ValueError(f"colours need an image (..., 1 or 3, height, width) of floats, not {x.dtype} {x.shape}")
    return x.shape[-3]


def _grey(x: np.ndarray) -> np.ndarray:
    return x if _channels(x) == 1 else (x * GREY.astype(x.dtype)).sum(-3, keepdims=True)


def _blend(x: np.ndarray, other: np.ndarray, factor: float) -> np.ndarray:
    factor = x.dtype.type(factor)
    return np.clip(factor * x + (1 - factor) * other, 0, 1)
