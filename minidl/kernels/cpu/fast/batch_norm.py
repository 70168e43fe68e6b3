"""The passes of batch_norm.py compiled, for float32.

Of images with channels last, (n, positions, channels), a channel is a column; of images with channels first, (n,
channels, positions), a row. All else is (n, channels): mean, variance, total and along of float64.

Sums over many elements are taken in float32 over blocks that stay in the cache, and in float64 over the blocks.
"""

import numpy as np

from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.images import by_image

BLOCK = 8192  # elements: 32 KiB of float32
MOST_ROWS = 256  # of a block, so that float32 is exact enough


def moments(images, last):
    mean, variance = (np.empty((images.shape[0], images.shape[2 if last else 1])) for _ in range(2))
    kernel = column_moments if last else row_moments
    by_image(images, lambda part: kernel(images[part], mean[part], variance[part]))
    return mean, variance


def scaled(images, last, mean, scale, offset):
    y = np.empty(images.shape, images.dtype)
    kernel = scale_columns if last else scale_rows
    by_image(images, lambda part: kernel(images[part], mean[part], scale[part], offset[part], y[part]))
    return y


def sums(grad, images, last, mean):
    total, along = np.empty(mean.shape), np.empty(mean.shape)
    kernel = column_sums if last else row_sums
    by_image(images, lambda part: kernel(grad[part], images[part], mean[part], total[part], along[part]))
    return total, along


def combined(grad, images, last, *numbers):
    out = np.empty(images.shape, images.dtype)
    kernel = combine_columns if last else combine_rows
    by_image(images, lambda part: kernel(grad[part], images[part], *(each[part] for each in numbers), out[part]))
    return out


@njit(fastmath=FLAGS)
def column_moments(x, mean, variance):
    """The mean and variance of each channel of each image.

    Two passes over each block, the second to correct the first, whose moments are then merged (Chan, Golub and LeVeque
    1983): a large mean loses no digits.
    """
    n, positions, channels = x.shape
    step = min(MOST_ROWS, max(1, BLOCK // channels))
    center, left, square = (
        np.empty(channels, np.float32),
        np.empty(channels, np.float32),
        np.empty(channels, np.float32),
    )
    mean[:], variance[:] = 0, 0
    for b in range(n):
        for start in range(0, positions, step):
            block = x[b, start : start + step]
            size = len(block)
            center[:], left[:], square[:] = 0, 0, 0
            for i in range(size):
                row = block[i]
                for c in range(channels):
                    center[c] += row[c]
            for c in range(channels):
                center[c] /= np.float32(size)
            for i in range(size):
                row = block[i]
                for c in range(channels):
                    apart = row[c] - center[c]
                    left[c] += apart
                    square[c] += apart * apart
            share = size / (start + size)
            for c in range(channels):
                correction = np.float64(left[c]) / size
                apart = center[c] + correction - mean[b, c]
                mean[b, c] += apart * share
                variance[b, c] += square[c] - correction * left[c] + apart * apart * start * share
        for c in range(channels):
            variance[b, c] /= positions


@njit(fastmath=FLAGS)
def row_moments(x, mean, variance):
    n, channels, positions = x.shape
    for b in range(n):
        for c in range(channels):
            row = x[b, c]
            total, left, square = np.float32(0), np.float32(0), np.float32(0)
            for i in range(positions):
                total += row[i]
            center = total / np.float32(positions)
            for i in range(positions):
                apart = row[i] - center
                left += apart
                square += apart * apart
            correction = np.float64(left) / positions
            mean[b, c], variance[b, c] = center + correction, square / positions - correction * correction


@njit(fastmath=FLAGS)
def scale_columns(x, mean, scale, offset, y):
    """y = (x - mean) * scale + offset."""
    for b in range(len(x)):
        m, s, o = mean[b], scale[b], offset[b]
        for i in range(x.shape[1]):
            row, out = x[b, i], y[b, i]
            for c in range(len(row)):
                out[c] = (row[c] - m[c]) * s[c] + o[c]


@njit(fastmath=FLAGS)
def scale_rows(x, mean, scale, offset, y):
    for b in range(len(x)):
        for c in range(x.shape[1]):
            row, out, m, s, o = x[b, c], y[b, c], mean[b, c], scale[b, c], offset[b, c]
            for i in range(len(row)):
                out[i] = (row[i] - m) * s + o


@njit(fastmath=FLAGS)
def column_sums(grad, x, mean, total, along):
    """The sums of grad and of grad * (x - mean) of each channel of each image."""
    n, positions, channels = x.shape
    step = min(MOST_ROWS, max(1, BLOCK // channels))
    block_total, block_along = np.empty(channels, np.float32), np.empty(channels, np.float32)
    total[:], along[:] = 0, 0
    for b in range(n):
        m = mean[b]
        for start in range(0, positions, step):
            block_total[:], block_along[:] = 0, 0
            for i in range(start, min(start + step, positions)):
                g, row = grad[b, i], x[b, i]
                for c in range(channels):
                    block_total[c] += g[c]
                    block_along[c] += g[c] * (row[c] - m[c])
            for c in range(channels):
                total[b, c] += block_total[c]
                along[b, c] += block_along[c]


@njit(fastmath=FLAGS)
def row_sums(grad, x, mean, total, along):
    for b in range(len(x)):
        for c in range(x.shape[1]):
            g, row, m = grad[b, c], x[b, c], mean[b, c]
            row_total, row_along = np.float32(0), np.float32(0)
            for i in range(len(row)):
                row_total += g[i]
                row_along += g[i] * (row[i] - m)
            total[b, c], along[b, c] = row_total, row_along


@njit(fastmath=FLAGS)
def combine_columns(grad, x, mean, scale, slope, offset, out):
    """out = grad * scale + (x - mean) * slope + offset."""
    for b in range(len(x)):
        m, s, t, o = mean[b], scale[b], slope[b], offset[b]
        for i in range(x.shape[1]):
            g, row, result = grad[b, i], x[b, i], out[b, i]
            for c in range(len(row)):
                result[c] = g[c] * s[c] + (row[c] - m[c]) * t[c] + o[c]


@njit(fastmath=FLAGS)
def combine_rows(grad, x, mean, scale, slope, offset, out):
    for b in range(len(x)):
        for c in range(x.shape[1]):
            g, row, result = grad[b, c], x[b, c], out[b, c]
            m, s, t, o = mean[b, c], scale[b, c], slope[b, c], offset[b, c]
            for i in range(len(row)):
                result[i] = g[i] * s + (row[i] - m) * t + o
