"""Batch and group norm: channels normalised, over a batch of images or by groups in each image.

Both take two passes over memory forward and two backward, without turning images whose channels lie last in memory, nor
large ones whose channels lie first. A pass (they are at the end) finds or takes numbers for each channel of each image,
(n, channels): what they are merged over makes the norm. A weight or a bias may be None.
"""

import math

import numpy as np

from minidl.kernels.cpu import fast
from minidl.kernels.cpu.images import channels_first, channels_last
from minidl.kernels.cpu.normalization import or_constant

__all__ = ["batch_norm", "batch_norm_grad", "batch_norm_sums", "channel_moments", "group_norm", "group_norm_grad"]

COMPILED_FROM = 1 << 13  # elements: NumPy is slow where the innermost loop is over a few channels
LONG = 64  # positions of a channel that are worth a row of their own


# Batch norm


def channel_moments(x):
    """The mean and the variance of each channel of x (n, channels, ...) over all else; zeros if there is nothing."""
    if not x.size:
        return np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    means, variances = _moments(*_images(x, merged=True))
    if len(means) == 1:
        return means[0].astype(x.dtype), variances[0].astype(x.dtype)
    mean = means.mean(axis=0)
    variance = variances.mean(axis=0) + np.square(means - mean).mean(axis=0)
    return mean.astype(x.dtype), variance.astype(x.dtype)


def batch_norm(x, mean, inverse, weight, bias):
    """(x - mean) * inverse * weight + bias: x (n, channels, ...), the others (channels,)."""
    images, last = _images(x, merged=True)
    scale = inverse if weight is None else inverse * weight
    y = _scale(images, last, mean, scale, or_constant(bias, 0, len(mean), x.dtype))
    return _as_given(y, last, x.shape)


def batch_norm_sums(grad, x, mean, inverse):
    """Of each channel, the sum of grad and of grad * (x - mean) * inverse: the gradients of bias and weight."""
    images, last = _images(x, merged=True)
    totals, alongs = _sums(_like(grad, x, images, last), images, last, mean)
    return totals.sum(axis=0).astype(x.dtype), (alongs.sum(axis=0) * inverse).astype(x.dtype)


def batch_norm_grad(grad, x, mean, inverse, weight, total, along, count):
    """The gradient of x, of which every channel has `count` elements; total and along are those of batch_norm_sums."""
    images, last = _images(x, merged=True)
    scale = inverse if weight is None else inverse * weight
    slope, offset = scale * inverse * along / -count, scale * total / -count
    out = _combine(_like(grad, x, images, last), images, last, mean, scale, slope, offset)
    return _as_given(out, last, x.shape)


# Group norm


def group_norm(x, groups, weight, bias, eps):
    """x (n, channels, ...), weight and bias (channels,) -> y, and mean and 1/standard deviation (n, groups)."""
    n, channels = x.shape[:2]
    if not x.size:
        return x.copy(), np.zeros((n, groups), x.dtype), np.zeros((n, groups), x.dtype)
    images, last = _images(x)
    means, variances = (m.reshape(n, groups, -1) for m in _moments(images, last))
    mean = means.mean(axis=2)
    variance = variances.mean(axis=2) + np.square(means - mean[:, :, None]).mean(axis=2)
    mean, inverse = mean.astype(x.dtype), (1 / np.sqrt(variance + eps)).astype(x.dtype)
    scale = _per_channel(inverse, channels)
    if weight is not None:
        scale = scale * weight
    y = _scale(images, last, _per_channel(mean, channels), scale, or_constant(bias, 0, channels, x.dtype))
    return _as_given(y, last, x.shape), mean, inverse


def group_norm_grad(grad, x, mean, inverse, weight):
    """The gradients of x (n, channels, ...), weight (channels,) and bias (channels,)."""
    (n, channels), groups = x.shape[:2], mean.shape[1]
    if not x.size:
        return x.copy(), np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
    images, last = _images(x)
    grad = _like(grad, x, images, last)
    mean, inverse = _per_channel(mean, channels), _per_channel(inverse, channels)
    totals, alongs = _sums(grad, images, last, mean)
    alongs = alongs * inverse
    scale = inverse if weight is None else inverse * weight
    count = x.size // (n * groups)
    offset, slope = (
        _per_channel((sums * scale).reshape(n, groups, -1).sum(axis=2) / -count, channels) for sums in (totals, alongs)
    )
    grad_x = _combine(grad, images, last, mean, scale, slope * inverse, offset)
    grad_weight, grad_bias = (sums.sum(axis=0).astype(x.dtype) for sums in (alongs, totals))
    return _as_given(grad_x, last, x.shape), grad_weight, grad_bias


def _per_channel(grouped, channels):
    """(n, groups) -> (n, channels)."""
    return np.repeat(grouped, channels // grouped.shape[1], axis=1)


# Passes over memory


def lays_channels_last(x, contiguous: bool) -> bool:
    """Whether images x (n, channels, ...) are gone through with channels last, and the result lies so in memory."""
    long = math.prod(x.shape[2:]) >= LONG and x.shape[1] > 1
    return not (contiguous and long and fast.use_compiled(x, COMPILED_FROM))


def _images(x, merged=False):
    """x (n, channels, ...) as (n, positions, channels), True; or where it lies so as (n, channels, positions), False.

    merged: small images may be taken as one, (1, n * positions, channels).
    """
    n, channels, positions = *x.shape[:2], math.prod(x.shape[2:])
    if not lays_channels_last(x, x.flags.c_contiguous):
        return x.reshape(n, channels, positions), False
    if merged and positions < LONG:
        n, positions = 1, n * positions
    return channels_last(x).reshape(n, positions, channels), True


def _like(grad, x, images, last):
    """`grad`, of the shape of x, laid out as `images`, which are x."""
    grad = channels_last(grad) if last else np.ascontiguousarray(grad)
    return grad.reshape(images.shape)


def _as_given(images, last, shape):
    """The result of a pass in the shape (n, channels, ...)."""
    return channels_first(images.reshape(shape[0], *shape[2:], shape[1])) if last else images.reshape(shape)


def _rows(numbers, images):
    """Numbers of each channel, (channels,) or (n, channels), as (n, channels) of the images' dtype."""
    numbers = numbers.astype(images.dtype, copy=False)
    return numbers if numbers.ndim == 2 else np.repeat(numbers[None], len(images), axis=0)


def _moments(images, last):
    """The mean and variance of each channel of each image: (n, channels) of float64."""
    if fast.use_compiled(images, COMPILED_FROM):
        return fast.batch_norm.moments(images, last)
    mean = images.mean(axis=1, dtype=np.float64)
    apart = images - mean.astype(images.dtype)[:, None]
    return mean, np.einsum("npc,npc->nc", apart, apart) / images.shape[1]


def _scale(images, last, mean, scale, offset):
    """(images - mean) * scale + offset."""
    mean, scale, offset = (_rows(numbers, images) for numbers in (mean, scale, offset))
    if fast.use_compiled(images, COMPILED_FROM):
        return fast.batch_norm.scaled(images, last, mean, scale, offset)
    return (images - mean[:, None]) * scale[:, None] + offset[:, None]


def _sums(grad, images, last, mean):
    """Of each channel of each image the sums of grad and of grad * (images - mean): (n, channels)."""
    mean = _rows(mean, images)
    if fast.use_compiled(images, COMPILED_FROM):
        return fast.batch_norm.sums(grad, images, last, mean)
    return grad.sum(axis=1), np.einsum("npc,npc->nc", grad, images - mean[:, None])


def _combine(grad, images, last, mean, scale, slope, offset):
    """grad * scale + (images - mean) * slope + offset."""
    mean, scale, slope, offset = (_rows(each, images) for each in (mean, scale, slope, offset))
    if fast.use_compiled(images, COMPILED_FROM):
        return fast.batch_norm.combined(grad, images, last, mean, scale, slope, offset)
    out = (images - mean[:, None]) * slope[:, None] + offset[:, None]
    out += grad * scale[:, None]
    return out
