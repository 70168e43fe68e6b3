"""Batch and group norm: channels normalised, over a batch of images or by groups in each image.

x (n, channels, ...) is a matrix with a row for each channel of each image. One kernel finds the mean and the variance
of rows, one sums for the gradients, one normalises, one makes the gradient; what rows are merged over makes the norm.
A weight or a bias may be None.
"""

import functools

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous, full
from minidl.kernels.cuda.columns import column_sums
from minidl.kernels.cuda.elementwise import add, divide, power
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over
from minidl.kernels.cuda.normalization import or_constant
from minidl.kernels.cuda.places import column, columns
from minidl.kernels.cuda.rows import across, blocks_of_rows, first_row, rows_at_once
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["batch_norm", "batch_norm_grad", "batch_norm_sums", "channel_moments", "group_norm", "group_norm_grad"]


# The kernels


@cuda.jit(device=True)
def statistics_of(row, channels, each):
    """Where a row's mean and deviation stand: one for `each` rows one after the other, or if 0 one for each channel."""
    return unsigned(row // each if each else row % channels)


@functools.cache
def row_moments_kernel(F: type):
    whole, zero = across("add", F), F(0)

    @cuda.jit
    def row_moments(means, variances, x, rows, width, count):
        """The mean and the variance of each row, which is read twice, the second time from the cache."""
        rows, width, columns = unsigned(rows), unsigned(width), unsigned(cuda.blockDim.x)
        first, step = first_row(), rows_at_once()
        while first < rows:
            row = unsigned(first + cuda.threadIdx.y)
            start = unsigned(row * width + cuda.threadIdx.x)
            end = unsigned(row * width + width if row < rows else 0)
            at, mean, square = start, zero, zero
            while at < end:
                mean += x[at]
                at = unsigned(at + columns)
            mean = whole(mean) / count
            at = start
            while at < end:
                apart = x[at] - mean
                square += apart * apart
                at = unsigned(at + columns)
            square = whole(square)
            if cuda.threadIdx.x == 0 and row < rows:
                means[row] = mean
                variances[row] = square / count
            first = unsigned(first + step)

    return row_moments


@functools.cache
def row_sums_kernel(F: type):
    whole, zero = across("add", F), F(0)

    @cuda.jit
    def row_sums(totals, alongs, grad, x, means, inverses, rows, width, channels, each):
        """Of each row the sums of grad and of grad * (x - mean) * inverse."""
        rows, width, columns = unsigned(rows), unsigned(width), unsigned(cuda.blockDim.x)
        channels, each = unsigned(channels), unsigned(each)
        first, step = first_row(), rows_at_once()
        while first < rows:
            row = unsigned(first + cuda.threadIdx.y)
            at = unsigned(row * width + cuda.threadIdx.x)
            end = unsigned(row * width + width if row < rows else 0)
            group = statistics_of(row, channels, each) if row < rows else unsigned(0)
            mean, inverse = means[group], inverses[group]
            total, along = zero, zero
            while at < end:
                total += grad[at]
                along += grad[at] * (x[at] - mean)
                at = unsigned(at + columns)
            total, along = whole(total), whole(along)
            if cuda.threadIdx.x == 0 and row < rows:
                totals[row] = total
                alongs[row] = along * inverse
            first = unsigned(first + step)

    return row_sums


@cuda.jit
def scale_rows(y, x, means, inverses, weight, bias, rows, width, channels, each):
    """y = (x - mean) * inverse * weight + bias, the last two those of a row's channel."""
    rows, width, channels, each = unsigned(rows), unsigned(width), unsigned(channels), unsigned(each)
    columns, step = unsigned(cuda.blockDim.x), rows_at_once()
    row = unsigned(first_row() + cuda.threadIdx.y)
    while row < rows:
        channel, group = unsigned(row % channels), statistics_of(row, channels, each)
        mean, scale, offset = means[group], inverses[group] * weight[channel], bias[channel]
        at, end = unsigned(row * width + cuda.threadIdx.x), unsigned(row * width + width)
        while at < end:
            y[at] = (x[at] - mean) * scale + offset
            at = unsigned(at + columns)
        row = unsigned(row + step)


@cuda.jit
def scale_rows_grad(out, grad, x, means, inverses, weight, totals, alongs, rows, width, channels, each, count):
    """The gradient of x: grad without its mean and its part along what was normalised, times inverse * weight.

    totals, alongs: what grad and grad * (x - mean) * inverse sum up to over `count` elements; those of groups are of
    grad * weight.
    """
    rows, width, channels, each = unsigned(rows), unsigned(width), unsigned(channels), unsigned(each)
    columns, step = unsigned(cuda.blockDim.x), rows_at_once()
    row = unsigned(first_row() + cuda.threadIdx.y)
    while row < rows:
        channel, group = unsigned(row % channels), statistics_of(row, channels, each)
        mean, inverse = means[group], inverses[group]
        scale = inverse * weight[channel]
        rest = inverse if each else scale
        offset, slope = rest * totals[group] / count, rest * inverse * alongs[group] / count
        at, end = unsigned(row * width + cuda.threadIdx.x), unsigned(row * width + width)
        while at < end:
            out[at] = grad[at] * scale - (x[at] - mean) * slope - offset
            at = unsigned(at + columns)
        row = unsigned(row + step)


@functools.cache
def group_sums_kernel(F: type):
    zero = F(0)

    @cuda.jit
    def group_sums(totals, alongs, of_rows, along_rows, weight, groups, channels, each):
        """The sums of rows, times their channels' weights, over groups of `each` rows. One thread a group."""
        groups, channels, each = unsigned(groups), unsigned(channels), unsigned(each)
        group, step = column(), columns()
        while group < groups:
            total, along = zero, zero
            row, end = unsigned(group * each), unsigned(group * each + each)
            channel = unsigned(row % channels)
            while row < end:
                total += of_rows[row] * weight[channel]
                along += along_rows[row] * weight[channel]
                row, channel = unsigned(row + 1), unsigned(channel + 1)
            totals[group] = total
            alongs[group] = along
            group = unsigned(group + step)

    return group_sums


# Batch norm


def channel_moments(x):
    """The mean and the variance of each channel of x (n, channels, ...) over all else; zeros if there is nothing."""
    n, channels = x.shape[:2]
    if not x.size:
        return full((channels,), 0, x.dtype), full((channels,), 0, x.dtype)
    means, variances = _moments(contiguous(x), n * channels)
    matrices = means.view((n, channels), None), variances.view((n, channels), None)
    mean = divide(column_sums("both", *matrices, means, means)[0], n)
    return mean, divide(column_sums("spread", *matrices, mean, mean)[1], n)


def batch_norm(x, mean, inverse, weight, bias):
    """(x - mean) * inverse * weight + bias: x (n, channels, ...), the others (channels,)."""
    return _scale(contiguous(x), contiguous(mean), contiguous(inverse), weight, bias, 0)


def batch_norm_sums(grad, x, mean, inverse):
    """Of each channel, the sum of grad and of grad * (x - mean) * inverse: the gradients of bias and weight."""
    totals, alongs = _sums(*map(contiguous, (grad, x, mean, inverse)))
    return column_sums("both", totals, alongs, mean, mean)


def batch_norm_grad(grad, x, mean, inverse, weight, total, along, count):
    """The gradient of x, of which every channel has `count` elements; total and along are those of batch_norm_sums."""
    grad, x, *numbers = map(contiguous, (grad, x, mean, inverse))
    return _scale_grad(grad, x, *numbers, weight, contiguous(total), contiguous(along), 0, count)


# Group norm


def group_norm(x, groups, weight, bias, eps):
    """x (n, channels, ...), weight and bias (channels,) -> y, and mean and 1/standard deviation (n, groups)."""
    n, channels = x.shape[:2]
    x = contiguous(x)
    if not x.size:
        return full(x.shape, 0, x.dtype), full((n, groups), 0, x.dtype), full((n, groups), 0, x.dtype)
    mean, variance = (m.view((n, groups), None) for m in _moments(x, n * groups))
    inverse = power(add(variance, eps), -0.5)
    return _scale(x, mean, inverse, weight, bias, channels // groups), mean, inverse


def group_norm_grad(grad, x, mean, inverse, weight):
    """The gradients of x (n, channels, ...), weight (channels,) and bias (channels,)."""
    (n, channels), groups, F = x.shape[:2], mean.shape[1], x.dtype.type
    if not x.size:
        return full(x.shape, 0, F), full((channels,), 0, F), full((channels,), 0, F)
    grad, x, mean, inverse = map(contiguous, (grad, x, mean, inverse))
    each = channels // groups
    rows = _sums(grad, x, mean, inverse, each)
    totals, alongs = CudaArray((n, groups), F), CudaArray((n, groups), F)
    scale = or_constant(weight, 1, channels, F)
    launch(group_sums_kernel(F), over(n * groups), THREADS, totals, alongs, *rows, scale, n * groups, channels, each)
    grad_x = _scale_grad(grad, x, mean, inverse, weight, totals, alongs, each, x.size // (n * groups))
    grad_bias, grad_weight = column_sums("both", *rows, *rows)
    return grad_x, grad_weight, grad_bias


# Launching them


def _moments(x, rows):
    """The mean and the variance of each of the `rows` of x: (rows,)."""
    width, F = x.size // rows, x.dtype.type
    means, variances = CudaArray((rows,), F), CudaArray((rows,), F)
    blocks, block, _ = blocks_of_rows(rows, width)
    launch(row_moments_kernel(F), blocks, block, means, variances, x, rows, width, F(width))
    return means, variances


def _sums(grad, x, mean, inverse, each=0):
    """Of each channel of each image the sums of grad and of grad * (x - mean) * inverse: (n, channels)."""
    (n, channels), F = x.shape[:2], x.dtype.type
    totals, alongs = full((n, channels), 0, F), full((n, channels), 0, F)
    if x.size:
        rows, width = _rows(x)
        blocks, block, _ = blocks_of_rows(rows, width)
        kernel = row_sums_kernel(F)
        launch(kernel, blocks, block, totals, alongs, grad, x, mean, inverse, rows, width, channels, each)
    return totals, alongs


def _scale(x, mean, inverse, weight, bias, each):
    channels, y = x.shape[1], CudaArray(x.shape, x.dtype)
    if x.size:
        rows, width = _rows(x)
        blocks, block, _ = blocks_of_rows(rows, width)
        numbers = mean, inverse, or_constant(weight, 1, channels, x.dtype), or_constant(bias, 0, channels, x.dtype)
        launch(scale_rows, blocks, block, y, x, *numbers, rows, width, channels, each)
    return y


def _scale_grad(grad, x, mean, inverse, weight, totals, alongs, each, count):
    channels, out = x.shape[1], CudaArray(x.shape, x.dtype)
    if x.size:
        rows, width = _rows(x)
        blocks, block, _ = blocks_of_rows(rows, width)
        numbers = mean, inverse, or_constant(weight, 1, channels, x.dtype), totals, alongs
        count = x.dtype.type(count)
        launch(scale_rows_grad, blocks, block, out, grad, x, *numbers, rows, width, channels, each, count)
    return out


def _rows(x):
    rows = x.shape[0] * x.shape[1]
    return rows, x.size // rows
