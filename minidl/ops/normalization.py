"""Normalisation: batch, layer, group and RMS norm."""

import math

from minidl.taped import taped
from minidl.tensor import Op, Tensor

EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}  # the step from 1 to the next number


class LayerNorm(Op):
    """(x - mean) / sqrt(variance + eps) * weight + bias, over the last `dims` dimensions (Ba et al. 2016)."""

    def __init__(self, dims: int, eps: float):
        self.dims, self.eps = dims, eps

    def forward(self, x, weight=None, bias=None):
        k, self.x, self.weight = self.kernels, x, weight
        y, self.mean, self.inverse = k.layer_norm(self._rows(x), _flat(k, weight), _flat(k, bias), self.eps)
        return k.reshape(y, x.shape)

    def again(self):
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

    def again(self):
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

    def again(self):
        k, shape = self.kernels, (self.x.shape[0], self.groups)
        rows = k.reshape(self.x, (math.prod(shape), math.prod(self.x.shape[1:]) // self.groups))
        self.mean, self.inverse = (k.reshape(s, shape) for s in _mean_and_inverse(k, rows, self.eps))

    def backward(self, grad):
        return self.kernels.group_norm_grad(grad, self.x, self.mean, self.inverse, self.weight)[: len(self.needs)]


class BatchNorm(Op):
    """(x - mean) / sqrt(variance + eps) * weight + bias, over all but the channels (Ioffe and Szegedy 2015)."""

    def __init__(self, eps: float):
        self.eps = eps

    def forward(self, x, weight=None, bias=None):
        self.x, self.weight = x, weight
        self.find_statistics()
        self.inverse = self.kernels.power(self.kernels.add(self.variance, self.eps), -0.5)
        return self.kernels.batch_norm(x, self.mean, self.inverse, weight, bias)

    def find_statistics(self):
        """Set mean and variance (channels,); how many elements a channel has (1 if none), whether any; n / (n - 1)."""
        n = elements_per_channel(self.x)
        self.mean, self.variance = self.kernels.channel_moments(self.x)
        self.count, self.present, self.bessel = max(1, n), min(1, n), n / max(1, n - 1)

    def again(self):
        self.find_statistics()
        self.inverse = self.kernels.power(self.kernels.add(self.variance, self.eps), -0.5)

    def backward(self, grad):
        k, x = self.kernels, self.x
        grad_bias, grad_weight = k.batch_norm_sums(grad, x, self.mean, self.inverse)
        total, along = self.over_whole_batch(grad_bias, grad_weight)
        grad_x = k.batch_norm_grad(grad, x, self.mean, self.inverse, self.weight, total, along, self.count)
        return (grad_x, grad_weight, grad_bias)[: len(self.needs)]

    def over_whole_batch(self, total, along):
        """The sums of batch_norm_sums over all that the statistics were taken of."""
        return total, along

    def track(self, running_mean: Tensor | None, running_var: Tensor | None, momentum: float | Tensor) -> None:
        """Move the running statistics, in place, by `momentum` towards those of forward, the variance unbiased."""
        k, momentum = self.kernels, momentum.data if isinstance(momentum, Tensor) else momentum
        for running, now, factor in ((running_mean, self.mean, 1), (running_var, self.variance, self.bessel)):
            if running is not None:
                change = k.multiply(k.subtract(k.multiply(now, factor), running.data), momentum)
                k.accumulate(running.data, k.multiply(change, self.present))


class FixedBatchNorm(Op):
    """(x - mean) * inverse * weight + bias with a given mean and 1/standard deviation of each channel."""

    def forward(self, x, mean, inverse, weight=None, bias=None):
        self.x, self.mean, self.inverse, self.weight = x, mean, inverse, weight
        return self.kernels.batch_norm(x, mean, inverse, weight, bias)

    def backward(self, grad):
        k, grad_bias, grad_weight = self.kernels, None, None
        if any(self.needs[3:]):
            grad_bias, grad_weight = k.batch_norm_sums(grad, self.x, self.mean, self.inverse)
        scale = self.inverse if self.weight is None else k.multiply(self.inverse, self.weight)
        grad_x = k.multiply(grad, k.reshape(scale, _column(grad.shape)))
        return (grad_x, None, None, grad_weight, grad_bias)[: len(self.needs)]


# Kernels on tensors


def _mean_and_inverse(k, rows, eps):
    """The mean and 1/standard deviation of each row: (rows, 1)."""
    width = rows.shape[1]
    mean = k.divide(k.sum(rows, 1, True), width)
    apart = k.subtract(rows, mean)
    variance = k.divide(k.sum(k.multiply(apart, apart), 1, True), width)
    return mean, k.power(k.add(variance, eps), -0.5)


@taped
def layer_norm_grad(grad, x, mean, inverse, weight):
    normal = (x - mean) * inverse
    scaled = grad if weight is None else grad * weight
    along = (scaled * normal).mean(1, keepdim=True)
    grad_x = (scaled - scaled.mean(1, keepdim=True) - normal * along) * inverse
    return grad_x, (grad * normal).sum(0), grad.sum(0)


@taped
def rms_norm_grad(grad, x, inverse, weight):
    normal = x * inverse
    scaled = grad if weight is None else grad * weight
    along = (scaled * normal).mean(1, keepdim=True)
    return (scaled - normal * along) * inverse, (grad * normal).sum(0)


@taped
def group_norm_grad(grad, x, mean, inverse, weight):
    (n, channels), groups = x.shape[:2], mean.shape[1]
    shape = n, groups, channels // groups, math.prod(x.shape[2:])
    mean, inverse = (s.reshape(n, groups, 1, 1) for s in (mean, inverse))
    grad, normal = grad.reshape(shape), (x.reshape(shape) - mean) * inverse
    scaled = grad if weight is None else grad * weight.reshape(1, *shape[1:3], 1)
    along = (scaled * normal).mean((2, 3), keepdim=True)
    grad_x = (scaled - scaled.mean((2, 3), keepdim=True) - normal * along) * inverse
    return grad_x.reshape(x.shape), (grad * normal).sum((0, 3)).reshape(channels), grad.sum((0, 3)).reshape(channels)


@taped
def channel_moments(x):
    dims = _all_but_channels(x)
    apart = x - x.mean(dims, keepdim=True)
    return x.mean(dims), (apart * apart).mean(dims)


@taped
def batch_norm_sums(grad, x, mean, inverse):
    dims, column = _all_but_channels(x), _column(x.shape)
    normal = (x - mean.reshape(column)) * inverse.reshape(column)
    return grad.sum(dims), (grad * normal).sum(dims)


@taped
def batch_norm_grad(grad, x, mean, inverse, weight, total, along, count):
    column = _column(x.shape)
    scale = inverse if weight is None else inverse * weight
    slope, offset, mean = ((s / count).reshape(column) for s in (inverse * along, total, mean * count))
    return (grad - offset - (x - mean) * slope) * scale.reshape(column)


def _all_but_channels(x):
    return (0, *range(2, len(x.shape)))


def _column(shape):
    """The shape in which numbers of the channels broadcast over images of `shape`."""
    return (1, shape[1], *(1,) * (len(shape) - 2))


def _flat(k, parameter):
    return parameter if parameter is None or len(parameter.shape) == 1 else k.reshape(parameter, (-1,))


def elements_per_channel(x) -> int:
    return math.prod(x.shape) // x.shape[1] if x.shape[1] else 0


# Functions


def layer_norm(
    x: Tensor, normalized_shape, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise x over its last dimensions, of normalized_shape, to mean 0, variance 1; then times weight, plus bias.

    normalized_shape: an int or several; weight and bias have this shape.
    """
    shape = _trailing("layer_norm", x, normalized_shape, weight, bias)
    return _with(LayerNorm(len(shape), eps), x, weight, bias)


def rms_norm(x: Tensor, normalized_shape, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Divide x by its root mean square over the last dimensions, of normalized_shape; then times weight of this shape.

    eps: added to the mean square; None for the smallest step from 1 that the dtype has.
    """
    shape = _trailing("rms_norm", x, normalized_shape, weight)
    return _with(RMSNorm(len(shape), EPSILON[x.dtype.name] if eps is None else eps), x, weight)


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise each of num_groups groups of channels of each image of x (batch, channels, ...); weight (channels,)."""
    _check_channels("group_norm", x, weight=weight, bias=bias)
    if num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(f"group_norm: {x.shape[1]} channels are not divisible by num_groups={num_groups}")
    return _with(GroupNorm(num_groups, eps), x, weight, bias)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of x (batch, channels, ...) over all else to mean 0, variance 1; then weight and bias.

    training: by the statistics of x, which change running_mean and running_var (with the unbiased variance) in place by
    `momentum`, if given; else by the running ones. An empty batch changes nothing. ValueError in training where a
    channel has only one element.
    """
    _check_channels("batch_norm", x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm needs running_mean and running_var unless training")
        inverse = Tensor(x.kernels.power(x.kernels.add(running_var.data, eps), -0.5))
        return _with(FixedBatchNorm(), x, weight, bias, running_mean, inverse)
    if elements_per_channel(x) == 1:
        raise ValueError(f"batch_norm in training needs more than one element in a channel, not the input {x.shape}")
    return batch_norm_by(BatchNorm(eps), x, running_mean, running_var, weight, bias, momentum)


def batch_norm_by(op: BatchNorm, x, running_mean, running_var, weight, bias, momentum) -> Tensor:
    """`op` of x, and the running statistics moved; the arguments are those of `batch_norm`."""
    y = _with(op, x, weight, bias)
    op.track(running_mean, running_var, momentum)
    return y


def _with(op: Op, x: Tensor, weight: Tensor | None, bias: Tensor | None = None, *statistics: Tensor) -> Tensor:
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
    _check_floats(name, x)
    return shape


def _check_channels(name, x, **per_channel):
    if x.ndim < 2:
        raise ValueError(f"{name} needs an input of shape (batch, channels, ...), not {x.shape}")
    for option, tensor in per_channel.items():
        if tensor is not None and tensor.shape != x.shape[1:2]:
            raise ValueError(
                f"{name}: {option} has shape {tensor.shape}, the input {x.shape} has {x.shape[1]} channels"
            )
    _check_floats(name, x)


def _check_floats(name, x):
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs floats, the input has dtype {x.dtype}: convert with .to(minidl.float32)")
