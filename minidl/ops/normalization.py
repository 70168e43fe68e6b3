"""Normalisation of each sample on its own: layer, group and RMS norm; and what batch norm shares with them."""

import math

import numpy as np

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.promotion import check_floats
from minidl.tensor import Tensor


class LayerNorm(Op):
    """(x - mean) / sqrt(variance + eps) * weight + bias, over the last `dims` dimensions (Ba et al. 2016)."""

    def __init__(self, dims: int, eps: float):
        self.dims, self.eps = dims, eps

    def forward(self, x, weight=None, bias=None):
        k, self.x, self.weight = self.kernels, x, weight
        y, self.mean, self.inverse = k.layer_norm(self._rows(x), _flat(k, weight), _flat(k, bias), self.eps)
        return k.reshape(y, x.shape)

    def recompute_saved(self):
        self.mean, self.inverse = _mean_and_inverse(self.kernels, self._rows(self.x), self.eps)

    def backward(self, grad):
        k, x, weight = self.kernels, self.x, _flat(self.kernels, self.weight)
        grads = k.layer_norm_grad(self._rows(grad), self._rows(x), self.mean, self.inverse, weight)
        shape = x.shape[-self.dims :]
        grads = k.reshape(grads[0], x.shape), k.reshape(grads[1], shape), k.reshape(grads[2], shape)
        return grads[: len(self.needs)]

    def _rows(self, x):  # (rows, width)
        return self.kernels.reshape(x, (math.prod(x.shape[: -self.dims]), math.prod(x.shape[-self.dims :])))


class RMSNorm(LayerNorm):
    """x / sqrt(mean of x^2 + eps) * weight, over the last `dims` dimensions (Zhang and Sennrich 2019)."""

    def forward(self, x, weight=None):
        k, self.x, self.weight = self.kernels, x, weight
        y, self.inverse = k.rms_norm(self._rows(x), _flat(k, weight), self.eps)
        return k.reshape(y, x.shape)

    def recompute_saved(self):
        k, x = self.kernels, self._rows(self.x)
        square = k.divide(k.sum(k.multiply(x, x), 1, True), x.shape[1])
        self.inverse = k.power(k.add(square, self.eps), -0.5)

    def backward(self, grad):
        k, x, weight = self.kernels, self.x, _flat(self.kernels, self.weight)
        grad_x, grad_weight = k.rms_norm_grad(self._rows(grad), self._rows(x), self.inverse, weight)
        grads = k.reshape(grad_x, x.shape), k.reshape(grad_weight, x.shape[-self.dims :])
        return grads[: len(self.needs)]


class GroupNorm(Op):
    """(x - mean) / sqrt(variance + eps) * weight + bias, over an image's channels of a group (Wu and He 2018)."""

    def __init__(self, groups: int, eps: float):
        self.groups, self.eps = groups, eps

    def forward(self, x, weight=None, bias=None):
        self.x, self.weight = x, weight
        y, self.mean, self.inverse = self.kernels.group_norm(x, self.groups, weight, bias, self.eps)
        return y

    def recompute_saved(self):
        k, shape = self.kernels, (self.x.shape[0], self.groups)
        rows = k.reshape(self.x, (math.prod(shape), math.prod(self.x.shape[1:]) // self.groups))
        self.mean, self.inverse = (k.reshape(s, shape) for s in _mean_and_inverse(k, rows, self.eps))

    def backward(self, grad):
        return self.kernels.group_norm_grad(grad, self.x, self.mean, self.inverse, self.weight)[: len(self.needs)]


# Kernels on tensors


def _mean_and_inverse(k, rows, eps):
    """The mean and 1/standard deviation of each row: (rows, 1)."""
    width = rows.shape[1]
    mean = k.divide(k.sum(rows, 1, True), width)
    apart = k.subtract(rows, mean)
    variance = k.divide(k.sum(k.multiply(apart, apart), 1, True), width)
    return mean, k.power(k.add(variance, eps), -0.5)


@tensor_kernel
def layer_norm_grad(grad, x, mean, inverse, weight):
    normal = (x - mean) * inverse
    scaled = grad if weight is None else grad * weight
    along = (scaled * normal).mean(1, keepdim=True)
    grad_x = (scaled - scaled.mean(1, keepdim=True) - normal * along) * inverse
    return grad_x, (grad * normal).sum(0), grad.sum(0)


@tensor_kernel
def rms_norm_grad(grad, x, inverse, weight):
    normal = x * inverse
    scaled = grad if weight is None else grad * weight
    along = (scaled * normal).mean(1, keepdim=True)
    return (scaled - normal * along) * inverse, (grad * normal).sum(0)


@tensor_kernel
def group_norm_grad(grad, x, mean, inverse, weight):
    (n, channels), groups = x.shape[:2], mean.shape[1]
    shape = n, groups, channels // groups, math.prod(x.shape[2:])
    mean, inverse = (s.reshape(n, groups, 1, 1) for s in (mean, inverse))
    grad, normal = grad.reshape(shape), (x.reshape(shape) - mean) * inverse
    scaled = grad if weight is None else grad * weight.reshape(1, *shape[1:3], 1)
    along = (scaled * normal).mean((2, 3), keepdim=True)
    grad_x = (scaled - scaled.mean((2, 3), keepdim=True) - normal * along) * inverse
    return grad_x.reshape(x.shape), (grad * normal).sum((0, 3)).reshape(channels), grad.sum((0, 3)).reshape(channels)


def _flat(k, parameter):
    return parameter if parameter is None or len(parameter.shape) == 1 else k.reshape(parameter, (-1,))


# Functions


def layer_norm(
    x: Tensor, normalized_shape, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise x over its last dimensions, of normalized_shape, to mean 0, variance 1; then times weight, plus bias.

    normalized_shape: an int or several; weight and bias have this shape.
    """
    shape = _trailing("layer_norm", x, normalized_shape, weight, bias)
    return apply(LayerNorm(len(shape), eps), x, weight, bias)


def rms_norm(x: Tensor, normalized_shape, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Divide x by its root mean square over the last dimensions, of normalized_shape; then times weight of this shape.

    eps: added to the mean square; None for the smallest step from 1 that the dtype has.
    """
    shape = _trailing("rms_norm", x, normalized_shape, weight)
    return apply(RMSNorm(len(shape), float(np.finfo(x.dtype).eps) if eps is None else eps), x, weight)


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise each of num_groups groups of channels of each image of x (batch, channels, ...); weight (channels,)."""
    check_channels("group_norm", x, weight=weight, bias=bias)
    if num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(f"group_norm: {x.shape[1]} channels are not divisible by num_groups={num_groups}")
    return apply(GroupNorm(num_groups, eps), x, weight, bias)


def apply(op: Op, x: Tensor, weight: Tensor | None, bias: Tensor | None = None, *statistics: Tensor) -> Tensor:
    """`op` of those inputs that are there; a bias alone comes with a weight of ones."""
    if weight is None and bias is not None:
        weight = Tensor(x.kernels.full(bias.shape, 1, x.dtype))
    return op(x, *statistics, *(t for t in (weight, bias) if t is not None))


def _trailing(name, x, normalized_shape, *parameters) -> tuple[int, ...]:
    """normalized_shape as a tuple, if x ends with it and the parameters have it."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"{name}: the input has shape {x.shape}, it must end with normalized_shape={shape}")
    for parameter in parameters:
        if parameter is not None and parameter.shape != shape:
            raise ValueError(f"{name}: a weight or bias has shape {parameter.shape}, normalized_shape is {shape}")
    check_floats(name, x)
    return shape


def check_channels(name, x, **per_channel):
    if x.ndim < 2:
        raise ValueError(f"{name} needs an input of shape (batch, channels, ...), not {x.shape}")
    for option, tensor in per_channel.items():
        if tensor is not None and tensor.shape != x.shape[1:2]:
            raise ValueError(
                f"{name}: {option} has shape {tensor.shape}, the input {x.shape} has {x.shape[1]} channels"
            )
    check_floats(name, x)
