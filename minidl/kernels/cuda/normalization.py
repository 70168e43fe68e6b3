"""Layer norm and RMS norm: each row of a matrix normalised. A weight or a bias may be None."""

import functools
import math

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous, full
from minidl.kernels.cuda.columns import column_sums
from minidl.kernels.cuda.kernel_launch import launch
from minidl.kernels.cuda.rows import BOUNDS, across, blocks_of_rows, first_row, rows_at_once
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad"]


# The kernels


@functools.cache
def norm_kernel(centred: bool, F: type, kept: int):
    whole, zero, one, slots = across("add", F), F(0), F(1), max(kept, 1)

    @cuda.jit(launch_bounds=BOUNDS)
    def norm_rows(y, means, inverses, x, weight, bias, rows, width, count, eps):
        """y = (x - mean) / standard deviation * weight + bias; not `centred`: the mean is taken to be 0.

        The variance is the mean square of what is left after the mean was taken away, which is exact to the last
        digits where E[x^2] - E[x]^2 loses all. So a row is gone through three times; if kept, in registers. count: the
        width as a float.
        """
        rows, width = unsigned(rows), unsigned(width)
        column, columns = unsigned(cuda.threadIdx.x), unsigned(cuda.blockDim.x)
        steps = kept if kept else np.int64(unsigned(width + columns - 1) // columns)
        values = cuda.local.array(slots, F)
        first, step = first_row(), rows_at_once()
        while first < rows:
            row = unsigned(first + cuda.threadIdx.y)
            start, end = unsigned(row * width), unsigned(width if row < rows else 0)
            mean, square = zero, zero
            if kept or centred:
                for k in range(steps):
                    j = unsigned(column + k * columns)
                    value = x[unsigned(start + j)] if j < end else zero
                    if kept:
                        values[k] = value
                    mean += value
            mean = whole(mean) / count if centred else zero
            for k in range(steps):
                j = unsigned(column + k * columns)
                if j < end:
                    apart = (values[k] if kept else x[unsigned(start + j)]) - mean
                    square += apart * apart
            inverse = one / math.sqrt(whole(square) / count + eps)
            for k in range(steps):
                j = unsigned(column + k * columns)
                if j < end:
                    apart = (values[k] if kept else x[unsigned(start + j)]) - mean
                    y[unsigned(start + j)] = apart * inverse * weight[j] + bias[j]
            if column == 0 and row < rows:
                inverses[row] = inverse
                if centred:
                    means[row] = mean
            first = unsigned(first + step)

    return norm_rows


@functools.cache
def norm_grad_kernel(centred: bool, F: type):
    whole, zero = across("add", F), F(0)

    @cuda.jit
    def norm_grad_rows(grad_x, grad, x, means, inverses, weight, rows, width, count):
        """The gradient of x: grad * weight without its mean and its part along the normalised row, over the deviation.

        A row is read twice, the second time from the cache.
        """
        rows, width = unsigned(rows), unsigned(width)
        column, columns = unsigned(cuda.threadIdx.x), unsigned(cuda.blockDim.x)
        first, step = first_row(), rows_at_once()
        while first < rows:
            row = unsigned(first + cuda.threadIdx.y)
            start, end = unsigned(row * width), unsigned(width if row < rows else 0)
            mean = means[row] if centred and row < rows else zero
            inverse = inverses[row] if row < rows else zero
            j, total, along = column, zero, zero
            while j < end:
                at = unsigned(start + j)
                g = grad[at] * weight[j]
                total += g
                along += g * (x[at] - mean) * inverse
                j = unsigned(j + columns)
            total = whole(total) / count if centred else zero
            along = whole(along) / count
            j = column
            while j < end:
                at = unsigned(start + j)
                normal = (x[at] - mean) * inverse
                grad_x[at] = (grad[at] * weight[j] - total - normal * along) * inverse
                j = unsigned(j + columns)
            first = unsigned(first + step)

    return norm_grad_rows


# Launching them


def layer_norm(x, weight, bias, eps):
    """x (rows, width), weight and bias (width,) -> y (rows, width), mean (rows, 1), 1/standard deviation (rows, 1)."""
    return _norm(x, weight, bias, eps, centred=True)


def rms_norm(x, weight, eps):
    """x (rows, width), weight (width,) -> y (rows, width), 1/root mean square (rows, 1)."""
    y, _, inverse = _norm(x, weight, None, eps, centred=False)
    return y, inverse


def layer_norm_grad(grad, x, mean, inverse, weight):
    """The gradients of x (rows, width), weight (width,) and bias (width,)."""
    return _norm_grad(grad, x, mean, inverse, weight, centred=True)


def rms_norm_grad(grad, x, inverse, weight):
    """The gradients of x (rows, width) and weight (width,)."""
    return _norm_grad(grad, x, full(inverse.shape, 0, x.dtype), inverse, weight, centred=False)[:2]


def or_constant(parameter, value, width, dtype):
    """The weight or bias, contiguous, or what stands for None."""
    return full((width,), value, dtype) if parameter is None else contiguous(parameter)


def _norm(x, weight, bias, eps, centred):
    x, (rows, width), F = contiguous(x), x.shape, x.dtype.type
    weight, bias = or_constant(weight, 1, width, x.dtype), or_constant(bias, 0, width, x.dtype)
    y, mean, inverse = (CudaArray(shape, x.dtype) for shape in (x.shape, (rows, 1), (rows, 1)))
    if x.size:
        blocks, block, kept = blocks_of_rows(rows, width)
        kernel = norm_kernel(centred, F, kept)
        launch(kernel, blocks, block, y, mean, inverse, x, weight, bias, rows, width, F(width), F(eps))
    return y, mean, inverse


def _norm_grad(grad, x, mean, inverse, weight, centred):
    grad, x, mean, inverse = map(contiguous, (grad, x, mean, inverse))
    (rows, width), F = x.shape, x.dtype.type
    weight, grad_x = or_constant(weight, 1, width, x.dtype), CudaArray(x.shape, x.dtype)
    if x.size:
        blocks, block, _ = blocks_of_rows(rows, width)
        kernel = norm_grad_kernel(centred, F)
        launch(kernel, blocks, block, grad_x, grad, x, mean, inverse, weight, rows, width, F(width))
    grad_bias, grad_weight = column_sums("grads", grad, x, mean, inverse, by_row=True)
    return grad_x, grad_weight, grad_bias
