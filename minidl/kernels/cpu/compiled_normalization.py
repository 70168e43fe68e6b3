"""The kernels of normalization.py compiled by Numba, for float32."""

import numpy as np
from numba import njit

from minidl.kernels.cpu.compiled import FLAGS, ONE, OPTIONS


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
