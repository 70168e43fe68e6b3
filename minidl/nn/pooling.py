"""Pooling layers, with PyTorch's names and arguments."""

from collections.abc import Callable

from minidl import ops
from minidl.nn.module import Module
from minidl.tensor import Tensor


class _MaxPool(Module):
    function: Callable[..., Tensor]

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, *, ceil_mode: bool = False):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x):
        return self.function(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self):
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window of sequences ([batch], channels, length); options of `ops.max_pool1d`."""

    function = staticmethod(ops.max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest element of each window of images ([batch], channels, height, width); options of `ops.max_pool2d`."""

    function = staticmethod(ops.max_pool2d)


class _AvgPool(Module):
    function: Callable[..., Tensor]

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode: bool = False, count_include_pad: bool = True):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def forward(self, x):
        return self.function(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window of sequences ([batch], channels, length); options of `ops.avg_pool1d`."""

    function = staticmethod(ops.avg_pool1d)


class AvgPool2d(_AvgPool):
    """The mean of each window of images ([batch], channels, height, width); options of `ops.avg_pool2d`."""

    function = staticmethod(ops.avg_pool2d)


class _AdaptivePool(Module):
    function: Callable[..., Tensor]

    def __init__(self, output_size):
        self.output_size = output_size

    def forward(self, x):
        return self.function(x, self.output_size)

    def extra_repr(self):
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePool):
    """The means of `output_size` windows that cover sequences ([batch], channels, length)."""

    function = staticmethod(ops.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptivePool):
    """The means of `output_size` windows that cover images; an int or two, None keeps a dimension as it is."""

    function = staticmethod(ops.adaptive_avg_pool2d)


class AdaptiveMaxPool2d(_AdaptivePool):
    """The largest elements of `output_size` windows that cover images; an int or two, None keeps a dimension."""

    function = staticmethod(ops.adaptive_max_pool2d)
