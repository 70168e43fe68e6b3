"""Normalisation: shapes and costs."""

from functools import partial

from minidl.kernels.cpu.batch_norm import lays_channels_last
from minidl.kernels.memory_order import channels_last
from minidl.kernels.meta.record import MetaArray, result

__all__ = [
    "batch_norm", "batch_norm_grad", "batch_norm_sums", "channel_moments", "group_norm", "group_norm_grad",
    "layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad",
]  # fmt: skip

_normalised = partial(result, kind="normalisation")


def _images(name, inputs, x, flops, also_written=()):
    strides = channels_last(x.shape) if lays_channels_last(x, x.contiguous) else None
    return _normalised(name, _given(*inputs), x.shape, x.dtype, flops, also_written=also_written, strides=strides)


def _given(*arrays):
    return tuple(x for x in arrays if x is not None)


def layer_norm(x, weight, bias, eps):
    mean, inverse = MetaArray((x.shape[0], 1), x.dtype), MetaArray((x.shape[0], 1), x.dtype)
    y = _normalised("layer_norm", _given(x, weight, bias), x.shape, x.dtype, 8, also_written=(mean, inverse))
    return y, mean, inverse


def layer_norm_grad(grad, x, mean, inverse, weight):
    grad_weight, grad_bias = MetaArray(x.shape[1:], x.dtype), MetaArray(x.shape[1:], x.dtype)
    inputs = _given(grad, x, mean, inverse, weight)
    grad_x = _normalised("layer_norm_grad", inputs, x.shape, x.dtype, 14, also_written=(grad_weight, grad_bias))
    return grad_x, grad_weight, grad_bias


def rms_norm(x, weight, eps):
    inverse = MetaArray((x.shape[0], 1), x.dtype)
    return _normalised("rms_norm", _given(x, weight), x.shape, x.dtype, 4, also_written=(inverse,)), inverse


def rms_norm_grad(grad, x, inverse, weight):
    grad_weight = MetaArray(x.shape[1:], x.dtype)
    inputs = _given(grad, x, inverse, weight)
    return _normalised("rms_norm_grad", inputs, x.shape, x.dtype, 11, also_written=(grad_weight,)), grad_weight


def channel_moments(x):
    variance = MetaArray(x.shape[1:2], x.dtype)
    mean = _normalised("channel_moments", (x,), x.shape[1:2], x.dtype, flops=4 * x.size, also_written=(variance,))
    return mean, variance


def batch_norm(x, mean, inverse, weight, bias):
    return _images("batch_norm", (x, mean, inverse, weight, bias), x, 3)


def batch_norm_sums(grad, x, mean, inverse):
    along = MetaArray(mean.shape, x.dtype)
    inputs = grad, x, mean, inverse
    return _normalised("batch_norm_sums", inputs, mean.shape, x.dtype, flops=4 * x.size, also_written=(along,)), along


def batch_norm_grad(grad, x, mean, inverse, weight, total, along, count):
    return _images("batch_norm_grad", (grad, x, mean, inverse, weight, total, along), x, 5)


def group_norm(x, groups, weight, bias, eps):
    mean, inverse = MetaArray((x.shape[0], groups), x.dtype), MetaArray((x.shape[0], groups), x.dtype)
    y = _images("group_norm", (x, weight, bias), x, 7, (mean, inverse))
    return y, mean, inverse


def group_norm_grad(grad, x, mean, inverse, weight):
    grad_weight, grad_bias = MetaArray(x.shape[1:2], x.dtype), MetaArray(x.shape[1:2], x.dtype)
    grad_x = _images("group_norm_grad", (grad, x, mean, inverse, weight), x, 9, (grad_weight, grad_bias))
    return grad_x, grad_weight, grad_bias
