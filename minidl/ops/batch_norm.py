"""Batch norm: each channel normalised over all else, by the statistics of the batch or by given ones."""

import math

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.normalization import apply, check_channels
from minidl.tensor import Tensor


class BatchNorm(Op):
    """(x - mean) / sqrt(variance + eps) * weight + bias, over all but the channels (Ioffe and Szegedy 2015)."""

    def __init__(self, eps: float):
        self.eps = eps

    def forward(self, x, weight=None, bias=None):
        self.x, self.weight = x, weight
        self._prepare()
        return self.kernels.batch_norm(x, self.mean, self.inverse, weight, bias)

    def find_statistics(self):
        """Set mean and variance (channels,); how many elements a channel has (1 if none), whether any; n / (n - 1)."""
        n = elements_per_channel(self.x)
        self.mean, self.variance = self.kernels.channel_moments(self.x)
        self.count, self.present, self.bessel = max(1, n), min(1, n), n / max(1, n - 1)

    def _prepare(self):
        self.find_statistics()
        self.inverse = self.kernels.power(self.kernels.add(self.variance, self.eps), -0.5)

    def recompute_saved(self):
        self._prepare()

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


@tensor_kernel
def channel_moments(x):
    dims = _all_but_channels(x)
    apart = x - x.mean(dims, keepdim=True)
    return x.mean(dims), (apart * apart).mean(dims)


@tensor_kernel
def batch_norm_sums(grad, x, mean, inverse):
    dims, column = _all_but_channels(x), _column(x.shape)
    normal = (x - mean.reshape(column)) * inverse.reshape(column)
    return grad.sum(dims), (grad * normal).sum(dims)


@tensor_kernel
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


def elements_per_channel(x) -> int:
    return math.prod(x.shape) // x.shape[1] if x.shape[1] else 0


# Functions


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
    check_channels("batch_norm", x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm needs running_mean and running_var unless training")
        inverse = Tensor(x.kernels.power(x.kernels.add(running_var.data, eps), -0.5))
        return apply(FixedBatchNorm(), x, weight, bias, running_mean, inverse)
    if elements_per_channel(x) == 1:
        raise ValueError(f"batch_norm in training needs more than one element in a channel, not the input {x.shape}")
    return batch_norm_by(BatchNorm(eps), x, running_mean, running_var, weight, bias, momentum)


def batch_norm_by(op: BatchNorm, x, running_mean, running_var, weight, bias, momentum) -> Tensor:
    """`op` of x, and the running statistics moved; the arguments are those of `batch_norm`."""
    y = apply(op, x, weight, bias)
    op.track(running_mean, running_var, momentum)
    return y
