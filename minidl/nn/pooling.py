"""Pooling layers, with PyTorch's names and arguments."""

from minidl import ops
from minidl.nn.module import Module


class MaxPool2d(Module):
    """The largest element of each window of images (batch, channels, height, width)."""

    def __init__(self, kernel_size, stride=None, padding=0):
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x):
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride or self.kernel_size}, padding={self.padding}"
