"""The kernels of normalization.py compiled by Numba, for float32.

Sums over many elements are taken in float32 over blocks that stay in the cache, and in float64 over the blocks.
"""

import numpy as np
from numba import njit

from minidl.kernels.cpu.compiled import FLAGS, ONE, OPTIONS

BLOCK = 8192  # elements: 32 KiB of float32
MOST_ROWS = 256  # of a block, so that float32 is exact enough


@njit(fastmath=FLAGS, **OPTIONS)
def layer_norm(x, weight, bias, eps, y, mean, inverse):
    """x, y (rows, width), weight, bias (width,), mean, inverse (rows,)."""
    rows, width = x.shape
    for i in range(rows):
        row, out = x[i], y[i]
        total = np.float32(0)
        for j in range(width):
            total += row[j]
        m = total / np.float32(width)
        square = np.float32(0)
        for j in range(width):
            square += (row[j] - m) * (row[j] - m)
        s = ONE / np.sqrt(square / np.float32(width) + eps)
        for j in range(width):
            out[j] = (row[j] - m) * s * weight[j] + bias[j]
        mean[i], inverse[i] = m, s


@njit(fastmath=FLAGS, **OPTIONS)
def layer_norm_grad(grad, x, mean, inverse, weight, grad_x, grad_weight, grad_bias):
    rows, width = x.shape
    for i in range(rows):
        g, row, out, m, s = grad[i], x[i], grad_x[i], mean[i], inverse[i]
        total, along = np.float32(0), np.float32(0)
        for j in range(width):
            normal = (row[j] - m) * s
            total += g[j] * weight[j]
            along += g[j] * weight[j] * normal
            grad_weight[j] += g[j] * normal
            grad_bias[j] += g[j]
        total /= np.float32(width)
        along /= np.float32(width)
        for j in range(width):
            out[j] = (g[j] * weight[j] - total - (row[j] - m) * s * along) * s


@njit(fastmath=FLAGS, **OPTIONS)
def rms_norm(x, weight, eps, y, inverse):
    """x, y (rows, width), weight (width,), inverse (rows,)."""
    rows, width = x.shape
    for i in range(rows):
        row, out = x[i], y[i]
        square = np.float32(0)
        for j in range(width):
            square += row[j] * row[j]
        s = ONE / np.sqrt(square / np.float32(width) + eps)
        for j in range(width):
            out[j] = row[j] * s * weight[j]
        inverse[i] = s


@njit(fastmath=FLAGS, **OPTIONS)
def rms_norm_grad(grad, x, inverse, weight, grad_x, grad_weight):
    rows, width = x.shape
    for i in range(rows):
        g, row, out, s = grad[i], x[i], grad_x[i], inverse[i]
        along = np.float32(0)
        for j in range(width):
            along += g[j] * weight[j] * row[j]
            grad_weight[j] += g[j] * row[j] * s
        along *= s * s / np.float32(width)
        for j in range(width):
            out[j] = (g[j] * weight[j] - row[j] * along) * s


@njit(fastmath=FLAGS, **OPTIONS)
def column_moments(x, mean, variance):
    """Of each column of x (rows, width), into mean and variance (width,) of float64.

    Two passes over each block, the second to correct the first, whose moments are then merged (Chan, Golub and LeVeque
    1983): a large mean loses no digits.
    """
    rows, width = x.shape
    step = min(MOST_ROWS, max(1, BLOCK // width))
    center, left, square = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    mean[:], variance[:] = 0, 0
    for start in range(0, rows, step):
        block = x[start : start + step]
        size = len(block)
        center[:], left[:], square[:] = 0, 0, 0
        for i in range(size):
            row = block[i]
            for j in range(width):
                center[j] += row[j]
        for j in range(width):
            center[j] /= np.float32(size)
        for i in range(size):
            row = block[i]
            for j in range(width):
                apart = row[j] - center[j]
                left[j] += apart
                square[j] += apart * apart
        share = size / (start + size)
        for j in range(width):
            correction = np.float64(left[j]) / size
            apart = center[j] + correction - mean[j]
            mean[j] += apart * share
            variance[j] += square[j] - correction * left[j] + apart * apart * start * share
    for j in range(width):
        variance[j] /= rows


@njit(fastmath=FLAGS, **OPTIONS)
def scale_columns(x, mean, scale, offset, y):
    """y = (x - mean) * scale + offset; x, y (rows, width), the others (width,)."""
    for i in range(len(x)):
        row, out = x[i], y[i]
        for j in range(len(row)):
            out[j] = (row[j] - mean[j]) * scale[j] + offset[j]


@njit(fastmath=FLAGS, **OPTIONS)
def column_sums(grad, x, mean, total, along):
    """Sums over the rows of grad and of grad * (x - mean), into total and along (width,) of float64."""
    rows, width = x.shape
    step = min(MOST_ROWS, max(1, BLOCK // width))
    block_total, block_along = np.empty(width, np.float32), np.empty(width, np.float32)
    total[:], along[:] = 0, 0
    for start in range(0, rows, step):
        block_total[:], block_along[:] = 0, 0
        for i in range(start, min(start + step, rows)):
            g, row = grad[i], x[i]
            for j in range(width):
                block_total[j] += g[j]
                block_along[j] += g[j] * (row[j] - mean[j])
        for j in range(width):
            total[j] += block_total[j]
            along[j] += block_along[j]


@njit(fastmath=FLAGS, **OPTIONS)
def combine_columns(grad, x, mean, scale, slope, offset, out):
    """out = grad * scale + (x - mean) * slope + offset; grad, x, out (rows, width), the others (width,)."""
    for i in range(len(x)):
        g, row, o = grad[i], x[i], out[i]
        for j in range(len(row)):
            o[j] = g[j] * scale[j] + (row[j] - mean[j]) * slope[j] + offset[j]


@njit(fastmath=FLAGS, **OPTIONS)
def group_norm(x, weight, bias, eps, y, mean, inverse):
    """x, y (n, positions, channels), weight, bias (channels,), mean, inverse (n, groups)."""
    n, _, channels = x.shape
    groups = mean.shape[1]
    size = channels // groups
    channel_mean, channel_variance = np.empty(channels), np.empty(channels)
    center, scale = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for b in range(n):
        column_moments(x[b], channel_mean, channel_variance)
        for g in range(groups):
            own = slice(g * size, (g + 1) * size)
            m = channel_mean[own].mean()
            variance = channel_variance[own].mean() + ((channel_mean[own] - m) ** 2).mean()
            mean[b, g], inverse[b, g] = m, 1 / np.sqrt(variance + eps)
            center[own], scale[own] = mean[b, g], inverse[b, g] * weight[own]
        scale_columns(x[b], center, scale, bias, y[b])


@njit(fastmath=FLAGS, **OPTIONS)
def group_norm_grad(grad, x, mean, inverse, weight, grad_x, grad_weight, grad_bias):
    """grad_weight and grad_bias (channels,) of float64, zeros."""
    n, positions, channels = x.shape
    groups = mean.shape[1]
    size = channels // groups
    total, along = np.empty(channels), np.empty(channels)
    center, scale = np.empty(channels, np.float32), np.empty(channels, np.float32)
    slope, offset = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for b in range(n):
        for g in range(groups):
            center[g * size : (g + 1) * size] = mean[b, g]
        column_sums(grad[b], x[b], center, total, along)
        for g in range(groups):
            own, s = slice(g * size, (g + 1) * size), np.float64(inverse[b, g])
            grad_bias[own] += total[own]
            grad_weight[own] += along[own] * s
            scale[own] = weight[own] * s
            slope[own] = -(along[own] * weight[own]).sum() * s * s * s / (positions * size)
            offset[own] = -(total[own] * weight[own]).sum() * s / (positions * size)
        combine_columns(grad[b], x[b], center, scale, slope, offset, grad_x[b])
