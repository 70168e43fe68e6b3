"""Convolution and pooling of images (batch, channels, height, width)."""

from minidl.tensor import Op, Tensor


class Conv2d(Op):
    """y[n, o, i, j] = bias[o] + the sum over c, a, b of weight[o, c, a, b] x[n, c, stride i + a, stride j + b]."""

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int]):
        self.stride, self.padding = stride, padding

    def forward(self, x, weight, bias=None):
        self.shapes = x.shape, weight.shape
        self.x = x if self.needs[1] else None
        self.weight = weight if self.needs[0] else None
        return self.kernels.conv2d(x, weight, bias, self.stride, self.padding)

    def backward(self, grad):  # (n, o, out_height, out_width)
        k, (x, weight), options = self.kernels, self.shapes, (self.stride, self.padding)
        grad_x = k.conv2d_grad_input(grad, self.weight, x, *options) if self.needs[0] else None
        grad_weight = k.conv2d_grad_weight(grad, self.x, weight, *options) if self.needs[1] else None
        if len(self.needs) == 2:
            return grad_x, grad_weight
        return grad_x, grad_weight, k.channel_sums(grad) if self.needs[2] else None


class MaxPool2d(Op):
    """The largest element of each window."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]):
        self.options = kernel, stride, padding

    def forward(self, x):
        self.shape = x.shape
        y, which = self.kernels.max_pool2d(x, *self.options)
        self.which = which if self.needs[0] else None
        return y

    def backward(self, grad):
        return self.kernels.max_pool2d_grad(grad, self.which, self.shape, *self.options)


def _two(value, name):
    """An int as a pair; a pair as it is."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2:
        raise ValueError(f"{name}={value!r}, it must be one int or two")
    return both


def _check_size(name, x, kernel, stride, padding):
    for option, pair, least in (("kernel size", kernel, 1), ("stride", stride, 1), ("padding", padding, 0)):
        if min(pair) < least:
            raise ValueError(f"{name}: {option} {tuple(pair)}, each must be at least {least}")
    if x.ndim != 4:
        raise ValueError(f"{name} needs images (batch, channels, height, width), not shape {x.shape}")
    if any(n + 2 * p < k for n, k, p in zip(x.shape[2:], kernel, padding, strict=True)):
        raise ValueError(f"{name}: images of {x.shape[2:]}, padded by {padding}, are smaller than the kernel {kernel}")


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0) -> Tensor:
    """x (batch, c, height, width), weight (o, c, *kernel size), bias (o,) -> (batch, o, out_height, out_width)."""
    stride, padding = _two(stride, "stride"), _two(padding, "padding")
    _check_size("conv2d", x, weight.shape[2:], stride, padding)
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"conv2d: the images have {x.shape[1]} channels, the weight {weight.shape} is for {weight.shape[1]}"
        )
    op = Conv2d(stride, padding)
    return op(x, weight) if bias is None else op(x, weight, bias)


def max_pool2d(x: Tensor, kernel_size, stride=None, padding=0) -> Tensor:
    """The largest element of each window of kernel_size, `stride` (kernel_size if None) apart."""
    kernel, padding = _two(kernel_size, "kernel_size"), _two(padding, "padding")
    stride = kernel if stride is None else _two(stride, "stride")
    _check_size("max_pool2d", x, kernel, stride, padding)
    return MaxPool2d(kernel, stride, padding)(x)
