"""Convolution of images (batch, channels, height, width)."""

from minidl.ops.images import check_size, two
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


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0) -> Tensor:
    """x (batch, c, height, width), weight (o, c, *kernel size), bias (o,) -> (batch, o, out_height, out_width)."""
    stride, padding = two(stride, "stride"), two(padding, "padding")
    check_size("conv2d", x, weight.shape[2:], stride, padding)
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"conv2d: the images have {x.shape[1]} channels, the weight {weight.shape} is for {weight.shape[1]}"
        )
    op = Conv2d(stride, padding)
    return op(x, weight) if bias is None else op(x, weight, bias)
