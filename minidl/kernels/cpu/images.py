"""Images in memory: channels last, behind the shape (batch, channels, height, width)."""

import numpy as np

from minidl.kernels.cpu import fast


def channels_last(x):
    """(batch, channels, height, width), or any number of dimensions -> contiguous (batch, height, width, channels)."""
    if fast.use_compiled(x) and x.flags.c_contiguous and x.shape[1] > 1:
        return fast.images.channels_last(x)
    return np.ascontiguousarray(x.transpose(0, *range(2, x.ndim), 1))


def channels_first(x):
    """(batch, height, width, channels), or any number of dimensions -> a view (batch, channels, height, width)."""
    return x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def in_order_of(other, x):
    """x in the order of memory of `other`, images of the same shape with channels first or last: itself or a copy."""
    if x.flags.c_contiguous and other.ndim > 2 and not other.flags.c_contiguous:
        return channels_first(channels_last(x))
    return np.ascontiguousarray(x) if other.flags.c_contiguous else x


def pad(x, padding):
    """Surround images (batch, height, width, channels) by (vertical, horizontal) rows and columns of zeros."""
    vertical, horizontal = padding
    if vertical == horizontal == 0:
        return x
    n, h, w, c = x.shape
    out = np.zeros((n, h + 2 * vertical, w + 2 * horizontal, c), x.dtype)
    out[:, vertical : vertical + h, horizontal : horizontal + w] = x
    return out
