"""Layer norm and RMS norm compiled, for float32. A weight or a bias is given."""

import numpy as np

from minidl.kernels.cpu.fast.compiling import FLAGS, njit
from minidl.kernels.cpu.fast.exponential import ONE
from minidl.kernels.cpu.fast.threads import split, split_sum, thread_rows


def layer_norm(x, weight, bias, eps):
    rows, width = x.shape
    x, eps = np.ascontiguousarray(x), np.float32(eps)
    y, mean, inverse = np.empty(x.shape, x.dtype), np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    found = y, mean, inverse
    split(rows, lambda part: normalise_rows(x[part], weight, bias, eps, *(a[part] for a in found)), thread_rows(width))
    return y, mean[:, None], inverse[:, None]


def layer_norm_grad(grad, x, mean, inverse, weight):
    grad_x = np.empty(x.shape, x.dtype)
    given = np.ascontiguousarray(grad), np.ascontiguousarray(x), mean[:, 0], inverse[:, 0]

    def over(part):
        sums = np.zeros((2, x.shape[1]), x.dtype)
        normalise_rows_gradient(*(a[part] for a in given), weight, grad_x[part], *sums)
        return sums

    return grad_x, *split_sum(len(x), over, thread_rows(x.shape[1]))


def rms_norm(x, weight, eps):
    rows, width = x.shape
    x, eps = np.ascontiguousarray(x), np.float32(eps)
    y, inverse = np.empty(x.shape, x.dtype), np.empty(rows, x.dtype)
    split(rows, lambda part: scale_by_rms(x[part], weight, eps, y[part], inverse[part]), thread_rows(width))
    return y, inverse[:, None]


def rms_norm_grad(grad, x, inverse, weight):
    grad_x = np.empty(x.shape, x.dtype)
    given = np.ascontiguousarray(grad), np.ascontiguousarray(x), inverse[:, 0]

    def over(part):
        total = np.zeros(x.shape[1], x.dtype)
        scale_by_rms_gradient(*(a[part] for a in given), weight, grad_x[part], total)
        return total

    return grad_x, split_sum(len(x), over, thread_rows(x.shape[1]))


@njit(fastmath=FLAGS)
def normalise_rows(x, weight, bias, eps, y, mean, inverse):
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


@njit(fastmath=FLAGS)
def normalise_rows_gradient(grad, x, mean, inverse, weight, grad_x, grad_weight, grad_bias):
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


@njit(fastmath=FLAGS)
def scale_by_rms(x, weight, eps, y, inverse):
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


@njit(fastmath=FLAGS)
def scale_by_rms_gradient(grad, x, inverse, weight, grad_x, grad_weight):
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
