"""Convolution layers, with PyTorch's names, arguments and initialisation."""

import math

from minidl import ops
from minidl.nn import init
from minidl.nn.cut import Cut
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter


class _Convolution(Module):
    """What the layers share. Weight and bias start uniform within 1/sqrt(fan in), as PyTorch's do."""

    dims = 2
    transposed = False

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias):
        kernel = (kernel_size,) * self.dims if isinstance(kernel_size, int) else tuple(kernel_size)
        name = type(self).__name__
        if groups < 1 or in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: in_channels={in_channels} and out_channels={out_channels} must be positive multiples of "
                f"groups={groups}"
            )
        if len(kernel) != self.dims or min(kernel) < 1:
            raise ValueError(
                f"{name}: kernel_size={kernel_size!r}, it must be {self.dims} positive sizes, or one for all"
            )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *kernel)
        recipe = init.fan_in_uniform(math.prod(shape[1:]))
        self.weight = Parameter(self.held(shape), init=recipe)
        self.bias = Parameter(self.held((out_channels,)), init=recipe) if bias else None

    def held(self, shape: tuple[int, ...]) -> Cut:
        """The part that this rank holds of a weight or a bias of `shape`: all of it, unless a subclass splits it."""
        return Cut(shape)

    def extra_repr(self):
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}"
        )
        options = {"dilation": (self.dilation, 1), "groups": (self.groups, 1), "bias": (self.bias is not None, True)}
        return text + "".join(f", {name}={value}" for name, (value, usual) in options.items() if value != usual)


class Conv1d(_Convolution):
    """Convolution of sequences (batch, in_channels, length)."""

    dims = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
        bias: bool = True,
    ):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    def forward(self, x):
        options = self.stride, self.padding, self.dilation, self.groups
        return ops.conv1d(x, self.weight, self.bias, *options)


class Conv2d(_Convolution):
    """Convolution of images (batch, in_channels, height, width); sizes are an int or a pair (vertical, horizontal)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
        bias: bool = True,
    ):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    def forward(self, x):
        options = self.stride, self.padding, self.dilation, self.groups
        return ops.conv2d(x, self.weight, self.bias, *options)


class ConvTranspose2d(_Convolution):
    """The transposed convolution of images (batch, in_channels, height, width), which enlarges them."""

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, output_padding=0,
        groups: int = 1, bias: bool = True, dilation=1,
    ):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.output_padding = output_padding

    def extra_repr(self):
        return super().extra_repr() + (f", output_padding={self.output_padding}" if self.output_padding else "")

    def forward(self, x):
        options = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return ops.conv_transpose2d(x, self.weight, self.bias, *options)
