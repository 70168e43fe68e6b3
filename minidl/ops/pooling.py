"""Pooling of images (batch, channels, height, width)."""

from minidl.ops.images import check_size, two
from minidl.tensor import Op, Tensor


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


def max_pool2d(x: Tensor, kernel_size, stride=None, padding=0) -> Tensor:
    """The largest element of each window of kernel_size, `stride` (kernel_size if None) apart."""
    kernel, padding = two(kernel_size, "kernel_size"), two(padding, "padding")
    stride = kernel if stride is None else two(stride, "stride")
    check_size("max_pool2d", x, kernel, stride, padding)
    return MaxPool2d(kernel, stride, padding)(x)
