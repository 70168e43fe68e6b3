"""Pooling: the largest or the mean element of each window of images or sequences."""

from collections.abc import Callable

from minidl.double_backward import tensor_kernel
from minidl.kernels.pooling_windows import Windows, adaptive, regular
from minidl.op import Op
from minidl.ops.images import as_given, as_images, check_images, sizes_of
from minidl.ops.promotion import check_floats
from minidl.tensor import Tensor


class Pool(Op):
    """An op on the windows of images."""

    def __init__(self, rows: Windows, columns: Windows):
        self.windows = rows, columns


class MaxPool2d(Pool):
    """The largest element of each window; of equal ones the first gets the gradient."""

    def forward(self, x):
        y, which = self.kernels.max_pool2d(x, *self.windows)
        self.which = which if self.needs[0] else None
        return y

    def backward(self, grad):
        return self.kernels.max_pool2d_grad(grad, self.which, *self.windows)


class MaxPool2dGrad(Pool):
    """Each element of `grad` at the place `which` of its window, zero elsewhere: what the max pool's gradient is."""

    one_dtype = False

    def forward(self, grad, which):
        self.which = which
        return self.kernels.max_pool2d_grad(grad, which, *self.windows)

    def backward(self, grad):
        return self.kernels.max_pool2d_take(grad, self.which, *self.windows), None


class MaxPool2dTake(Pool):
    """The element at the place `which` of each window: the transpose of MaxPool2dGrad."""

    one_dtype = False

    def forward(self, x, which):
        self.which = which
        return self.kernels.max_pool2d_take(x, which, *self.windows)

    def backward(self, grad):
        return self.kernels.max_pool2d_grad(grad, self.which, *self.windows), None


class AvgPool2d(Pool):
    """The sum of each window over a divisor."""

    def forward(self, x):
        return self.kernels.avg_pool2d(x, *self.windows)

    def backward(self, grad):
        return self.kernels.avg_pool2d_grad(grad, *self.windows)


class AvgPool2dGrad(Pool):
    """Each element of `grad` over a divisor, summed into all elements of its window: the transpose of AvgPool2d."""

    forward, backward = AvgPool2d.backward, AvgPool2d.forward


@tensor_kernel
def max_pool2d_grad(grad, which, rows, columns):
    return MaxPool2dGrad(rows, columns)(grad, which)


@tensor_kernel
def max_pool2d_take(x, which, rows, columns):
    return MaxPool2dTake(rows, columns)(x, which)


@tensor_kernel
def avg_pool2d_grad(grad, rows, columns):
    return AvgPool2dGrad(rows, columns)(grad)


def max_pool2d(x: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False) -> Tensor:
    """The largest element of each window of images ([batch], channels, height, width); NaN where the window has one.

    stride: from window to window, kernel_size if None. padding: at most half of the window. dilation: between the
    elements of a window. ceil_mode: also windows that hang over the end. Sizes are an int or one for each dimension.
    """
    return _pool("max_pool2d", MaxPool2d, x, 2, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d(x: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False) -> Tensor:
    """The largest element of each window of sequences ([batch], channels, length): see `max_pool2d`."""
    return _pool("max_pool1d", MaxPool2d, x, 1, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool2d(x: Tensor, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True) -> Tensor:
    """The mean of each window of images ([batch], channels, height, width); options as for `max_pool2d`.

    count_include_pad: whether the mean counts the zeros of the padding.
    """
    return _pool("avg_pool2d", AvgPool2d, x, 2, kernel_size, stride, padding, 1, ceil_mode, count_include_pad)


def avg_pool1d(x: Tensor, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True) -> Tensor:
    """The mean of each window of sequences ([batch], channels, length): see `avg_pool2d`."""
    return _pool("avg_pool1d", AvgPool2d, x, 1, kernel_size, stride, padding, 1, ceil_mode, count_include_pad)


def adaptive_avg_pool2d(x: Tensor, output_size) -> Tensor:
    """The means of output_size windows that cover images ([batch], channels, height, width).

    output_size: an int, or one for each dimension, where None keeps that of the image.
    """
    return _adaptive_pool("adaptive_avg_pool2d", AvgPool2d, x, 2, output_size)


def adaptive_avg_pool1d(x: Tensor, output_size) -> Tensor:
    """The means of output_size windows that cover sequences ([batch], channels, length)."""
    return _adaptive_pool("adaptive_avg_pool1d", AvgPool2d, x, 1, output_size)


def adaptive_max_pool2d(x: Tensor, output_size) -> Tensor:
    """The largest elements of output_size windows that cover images: see `adaptive_avg_pool2d`."""
    return _adaptive_pool("adaptive_max_pool2d", MaxPool2d, x, 2, output_size)


def _pool(name, op, x, dims, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad=True):
    _check_input(name, x, dims)
    options = kernel_size, stride, padding, dilation, ceil_mode, count_include_pad
    return _apply(op, x, pool_windows(name, x.shape[-dims:], *options))


def pool_windows(
    name: str, sizes: tuple[int, ...], kernel_size, stride, padding, dilation, ceil_mode: bool, count_include_pad: bool
) -> list[Windows]:
    """Where the windows of a pool lie along each dimension of images of these `sizes`.

    name: for the ValueError where the options do not suit them.
    """
    dims = len(sizes)
    kernel = sizes_of(name, "kernel_size", kernel_size, dims)
    stride = kernel if stride is None else sizes_of(name, "stride", stride, dims)
    padding = sizes_of(name, "padding", padding, dims, 0)
    dilation = sizes_of(name, "dilation", dilation, dims)
    windows = []
    for size, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        if p > (d * (k - 1) + 1) // 2:
            raise ValueError(f"{name}: padding={p}, at most half of the window of {d * (k - 1) + 1} elements")
        windows.append(regular(size, k, s, p, d, ceil_mode, count_include_pad))
        if not len(windows[-1]):
            raise ValueError(
                f"{name}: images of {sizes}, padded by {padding}, are smaller than a window (kernel_size={kernel})"
            )
    return windows


def _adaptive_pool(name, op, x, dims, output_size):
    _check_input(name, x, dims)
    counts = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * dims
    if len(counts) == dims:
        counts = tuple(n if c is None else c for n, c in zip(x.shape[-dims:], counts, strict=True))
    counts = sizes_of(name, "output_size", counts, dims)
    return _apply(op, x, [adaptive(size, count) for size, count in zip(x.shape[-dims:], counts, strict=True)])


def _apply(op: Callable[[Windows, Windows], Op], x: Tensor, windows: list[Windows]) -> Tensor:
    """Run `op` on x as images: a sequence is an image of one row."""
    dims = len(windows)
    rows = [regular(1, 1, 1, 0)] if dims == 1 else []
    return as_given(op(*rows, *windows)(as_images(x, dims)), x, dims)


def _check_input(name, x, dims):
    check_images(name, x, dims)
    if 0 in x.shape[-dims:]:
        raise ValueError(f"{name} needs an element at least in each dimension of its windows, not shape {x.shape}")
    check_floats(name, x)
