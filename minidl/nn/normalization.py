"""Normalisation layers, with PyTorch's names and arguments."""

from minidl import ops
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import Buffer, Parameter
from minidl.tensor import Tensor
from minidl.validation import check_positive


def _weight_and_bias(shape, weight: bool, bias: bool) -> tuple[Parameter | None, Parameter | None]:
    """Ones and zeros of `shape`, each None if it is not wanted."""
    return (
        Parameter(shape, init=init.constant(1)) if weight else None,
        Parameter(shape, init=init.constant(0)) if bias else None,
    )


def _shape(normalized_shape) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)


class LayerNorm(Module):
    """Normalise the last dimensions, of `normalized_shape`, to mean 0 and variance 1; then a learned scale and offset.

    normalized_shape: an int or several. elementwise_affine: whether there is a scale, and with `bias` an offset.
    """

    def __init__(self, normalized_shape, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True):
        self.normalized_shape, self.eps, self.elementwise_affine = _shape(normalized_shape), eps, elementwise_affine
        self.weight, self.bias = _weight_and_bias(
            self.normalized_shape, elementwise_affine, elementwise_affine and bias
        )

    def forward(self, x):
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(Module):
    """Divide by the root mean square of the last dimensions, of `normalized_shape`; then a learned scale.

    eps: added to the mean square; None for the smallest step from 1 that the dtype has.
    """

    def __init__(self, normalized_shape, eps: float | None = None, elementwise_affine: bool = True):
        self.normalized_shape, self.eps, self.elementwise_affine = _shape(normalized_shape), eps, elementwise_affine
        self.weight, _ = _weight_and_bias(self.normalized_shape, elementwise_affine, False)

    def forward(self, x):
        return ops.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Normalise groups of channels of each image to mean 0 and variance 1; then a learned scale and offset a channel.

    For inputs (batch, num_channels, ...); ValueError if num_channels is not divisible by num_groups.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, bias: bool = True
    ):
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_channels={num_channels} is not divisible by num_groups={num_groups}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.weight, self.bias = _weight_and_bias((num_channels,), affine, affine and bias)

    def forward(self, x):
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class BatchNorm(Module):
    """What the batch norms share: parameters, running statistics, and when which statistics are used.

    momentum: how far the running statistics move towards those of each batch; None for the average over all batches.
    affine: whether there is a learned scale, and with `bias` an offset. track_running_stats=False: evaluation, too,
    goes by the statistics of the batch.
    """

    dims: tuple[str, ...] = ()  # what the input may look like

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
    ):
        check_positive(f"{type(self).__name__}: eps", eps)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        shape = (num_features,)
        self.weight, self.bias = _weight_and_bias(shape, affine, affine and bias)
        self.running_mean = Buffer(shape, init=init.constant(0)) if track_running_stats else None
        self.running_var = Buffer(shape, init=init.constant(1)) if track_running_stats else None
        self.num_batches_tracked = Buffer((), init=init.constant(0), dtype="int64") if track_running_stats else None

    def forward(self, x):
        if x.ndim not in [1 + dims.count(",") for dims in self.dims] or x.shape[1] != self.num_features:
            wanted = " or ".join(dims.replace("channels", str(self.num_features)) for dims in self.dims)
            raise ValueError(f"{type(self).__name__} needs an input of shape {wanted}, not {x.shape}")
        if not self.training and self.track_running_stats:
            return ops.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if not (self.training and self.track_running_stats):
            return self.by_batch(x, None, None, 0.0)
        x.kernels.accumulate(self.num_batches_tracked.data, x.kernels.array(1, "int64"))
        momentum = 1.0 / self.num_batches_tracked.to(x.dtype) if self.momentum is None else self.momentum
        return self.by_batch(x, self.running_mean, self.running_var, momentum)

    def by_batch(self, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum) -> Tensor:
        """Normalise x by its own statistics, towards which the running ones move."""
        return ops.batch_norm(x, running_mean, running_var, self.weight, self.bias, True, momentum, self.eps)

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(BatchNorm):
    """Normalise each channel over the batch (and the length) to mean 0, variance 1; then a learned scale and offset."""

    dims = "(batch, channels)", "(batch, channels, length)"


class BatchNorm2d(BatchNorm):
    """Normalise each channel over the batch and the image to mean 0, variance 1; then a learned scale and offset."""

    dims = ("(batch, channels, height, width)",)
