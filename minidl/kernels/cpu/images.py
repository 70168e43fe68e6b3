"""The order of images in memory: channels last, behind the shape (batch, channels, height, width)."""

import numpy as np


def channels_last(x):
    """(batch, channels, height, width), or any number of dimensions -> contiguous (batch, height, width, channels)."""
    return np.ascontiguousarray(x.transpose(0, *range(2, x.ndim), 1))


def channels_first(x):
    """(batch, height, width, channels), or any number of dimensions -> a view (batch, channels, height, width)."""
    return x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def pad(x, padding, value=0):
    """Surround images (batch, height, width, channels) by (vertical, horizontal) rows and columns of `value`."""
    vertical, horizontal = padding
    if vertical == horizontal == 0:
        return x
    n, h, w, c = x.shape
    out = np.full((n, h + 2 * vertical, w + 2 * horizontal, c), value, x.dtype)
    out[:, vertical : vertical + h, horizontal : horizontal + w] = x
    return out
