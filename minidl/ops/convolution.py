"""Convolution of sequences (batch, channels, length) and images (batch, channels, height, width).

A convolution and its two gradients are each linear in two arrays, and the derivatives of any of the three are the other
two: so the three ops here can be differentiated as often as one likes.
"""

from collections.abc import Callable

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.arithmetic import add
from minidl.ops.images import as_given, as_images, check_images, sizes_of
from minidl.ops.indexing import getitem
from minidl.ops.rearranging import pad
from minidl.ops.reduction import sum
from minidl.ops.shape import reshape
from minidl.tensor import Tensor


class Conv2d(Op):
    """y[n, o, i, j] = bias[o] + the sum over c, a, b of weight[o, c, a, b] x[n, c, s i + d a, s j + d b].

    x is meant with its padding; s is the stride, d the dilation. With groups, c runs over the channels of o's group.
    """

    splits_backward = True

    def __init__(self, stride, padding, dilation, groups: int):
        self.options = stride, padding, dilation, groups

    def forward(self, x, weight, bias=None):
        self.shapes = x.shape, weight.shape
        self.x = x if self.needs[1] else None
        self.weight = weight if self.needs[0] else None
        return self.kernels.conv2d(x, weight, bias, *self.options)

    def backward(self, grad):  # (n, o, out_height, out_width)
        grad_x = self.input_gradient(grad) if self.needs[0] else None
        grad_weight = self.weight_gradient(grad) if self.needs[1] else None
        return grad_x, grad_weight, *[self.bias_gradient(grad) if needed else None for needed in self.needs[2:]]

    def input_gradient(self, grad):
        return self.kernels.conv2d_grad_input(grad, self.weight, self.shapes[0], *self.options)

    def weight_gradient(self, grad):
        return self.kernels.conv2d_grad_weight(grad, self.x, self.shapes[1], *self.options)

    def bias_gradient(self, grad):
        return self.kernels.channel_sums(grad)


class Conv2dGradInput(Op):
    """The gradient of a Conv2d by its input, of `shape`: linear in the gradient of the result and in the weight.

    It is also the transposed convolution.
    """

    def __init__(self, shape, *options):
        self.shape, self.options = shape, options

    def forward(self, x, weight):
        self.x = x if self.needs[1] else None
        self.weight, self.weight_shape = weight if self.needs[0] else None, weight.shape
        return self.kernels.conv2d_grad_input(x, weight, self.shape, *self.options)

    def backward(self, grad):  # of `shape`
        k = self.kernels
        grad_x = k.conv2d(grad, self.weight, None, *self.options) if self.needs[0] else None
        if not self.needs[1]:
            return grad_x, None
        return grad_x, k.conv2d_grad_weight(self.x, grad, self.weight_shape, *self.options)


class Conv2dGradWeight(Op):
    """The gradient of a Conv2d by its weight, of `shape`: linear in the gradient of the result and in the input."""

    def __init__(self, shape, *options):
        self.shape, self.options = shape, options

    def forward(self, y, x):
        self.y = y if self.needs[1] else None
        self.x, self.x_shape = x if self.needs[0] else None, x.shape
        return self.kernels.conv2d_grad_weight(y, x, self.shape, *self.options)

    def backward(self, grad):  # of `shape`
        k = self.kernels
        grad_y = k.conv2d(self.x, grad, None, *self.options) if self.needs[0] else None
        return grad_y, k.conv2d_grad_input(self.y, grad, self.x_shape, *self.options) if self.needs[1] else None


def conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """x (batch, c, length), weight (o, c / groups, kernel size), bias (o,) -> (batch, o, out_length), as conv2d."""
    _check_bias("conv1d", bias, weight.shape[:1])
    return convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


@tensor_kernel
def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """x (batch, c, height, width), weight (o, c / groups, *kernel size), bias (o,) -> (batch, o, *out_size).

    stride, padding and dilation are an int or a pair (vertical, horizontal); padding may also be "valid", none, or
    "same", which keeps the size and needs stride 1. Each of `groups` parts of the channels has its own part of the
    weight and of the result. x may lack the batch dimension; the result then does too.
    """
    _check_bias("conv2d", bias, weight.shape[:1])
    return convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


@tensor_kernel
def conv2d_grad_input(grad, weight, x_shape, *options):
    """The gradient of conv2d by its input, differentiable in both arguments."""
    return Conv2dGradInput(x_shape, *options)(grad, weight)


@tensor_kernel
def conv2d_grad_weight(grad, x, weight_shape, *options):
    """The gradient of conv2d by its weight, differentiable in both arguments."""
    return Conv2dGradWeight(weight_shape, *options)(grad, x)


@tensor_kernel
def channel_sums(x):
    """x (n, c, height, width) -> (c,)."""
    return sum(x, (0, 2, 3))


def conv_transpose1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Tensor:
    """x (batch, c, length), weight (c, o / groups, kernel size), bias (o,): as conv_transpose2d."""
    return _convolve_transposed(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Tensor:
    """The gradient of conv2d by its input, as a layer that enlarges images.

    x (batch, c, height, width), weight (c, o / groups, *kernel size), bias (o,) -> (batch, o, out_height, out_width),
    where out_height = (height - 1) stride - 2 padding + dilation (kernel size - 1) + output_padding + 1. A
    convolution with stride > 1 gives several sizes of images the same size of result; output_padding, smaller than the
    stride or the dilation, chooses among them.
    """
    return _convolve_transposed(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def convolve(name, dims, x, weight, bias, stride, padding, dilation, groups, op: Callable[..., Conv2d] = Conv2d):
    """What conv1d (`dims` 1) and conv2d (2) do, by `op(stride, padding, dilation, groups)`. name: for errors.

    The bias may be of other channels than the weight's, if that is what `op` takes.
    """
    stride, dilation = sizes_of(name, "stride", stride, dims), sizes_of(name, "dilation", dilation, dims)
    _check_operands(name, dims, x, weight, groups)
    if x.shape[-dims - 1] != weight.shape[1] * groups:
        raise ValueError(
            f"{name}: the input has {x.shape[-dims - 1]} channels, the weight {weight.shape} with groups={groups} is "
            f"for {weight.shape[1] * groups}"
        )
    if weight.shape[0] % groups:
        raise ValueError(f"{name}: the {weight.shape[0]} channels of the result are not divisible by groups={groups}")
    reach = tuple(d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True))
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise ValueError(f'{name}: padding={padding!r}, it must be of ints, "same" or "valid"')
    same = padding == "same"
    if same:
        if max(stride) > 1:
            raise ValueError(f'{name}: padding="same" needs stride 1, not {stride}')
        padding = tuple((r + 1) // 2 for r in reach)
    padding = sizes_of(name, "padding", 0 if padding == "valid" else padding, dims, 0)
    if any(n + 2 * p <= r for n, p, r in zip(x.shape[-dims:], padding, reach, strict=True)):
        raise ValueError(
            f"{name}: inputs of size {x.shape[-dims:]}, padded by {padding}, are smaller than the kernel "
            f"{weight.shape[2:]} with dilation {dilation}"
        )
    options = (*(_lifted(option, fill) for option, fill in ((stride, 1), (padding, 0), (dilation, 1))), groups)
    inputs = (as_images(x, dims), as_images(weight, dims), *(() if bias is None else (bias,)))
    y = as_given(op(*options)(*inputs), x, dims)
    if same and any(r % 2 for r in reach):  # the odd one of the padding goes to the end, as in PyTorch
        y = getitem(y, (..., *(slice(r % 2, None) for r in reach)))
    return y


def _convolve_transposed(name, dims, x, weight, bias, stride, padding, output_padding, groups, dilation):
    stride, dilation = sizes_of(name, "stride", stride, dims), sizes_of(name, "dilation", dilation, dims)
    padding = sizes_of(name, "padding", padding, dims, 0)
    more = sizes_of(name, "output_padding", output_padding, dims, 0)
    _check_operands(name, dims, x, weight, groups)
    if x.shape[-dims - 1] != weight.shape[0] or weight.shape[0] % groups:
        raise ValueError(
            f"{name}: the input has {x.shape[-dims - 1]} channels, the weight {weight.shape} is for {weight.shape[0]}, "
            f"which must be divisible by groups={groups}"
        )
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        raise ValueError(
            f"{name}: output_padding {more} must be smaller than the stride {stride} or the dilation {dilation}"
        )
    channels = weight.shape[1] * groups
    _check_bias(name, bias, (channels,))
    sizes = zip(x.shape[-dims:], stride, padding, dilation, weight.shape[2:], more, strict=True)
    out_size = tuple((n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, s, p, d, k, m in sizes)
    if min(out_size) < 1:
        raise ValueError(f"{name}: inputs of size {x.shape[-dims:]} would give results of size {out_size}")
    images = as_images(x, dims)
    if any(m >= s for m, s in zip(more, stride, strict=True)):  # whole strides of it are zeros at the end of the input
        images = pad(images, [n for m, s in zip(more[::-1], stride[::-1], strict=True) for n in (0, m // s)])
    shape = (images.shape[0], channels, *_lifted(out_size, 1))
    options = (*(_lifted(option, fill) for option, fill in ((stride, 1), (padding, 0), (dilation, 1))), groups)
    y = Conv2dGradInput(shape, *options)(images, as_images(weight, dims))
    if bias is not None:
        y = add(y, reshape(bias, -1, 1, 1))
    return as_given(y, x, dims)


def _lifted(sizes, fill):
    """The sizes of a sequence as those of an image of one row."""
    return (fill, *sizes) if len(sizes) == 1 else sizes


def _check_operands(name, dims, x, weight, groups):
    check_images(name, x, dims)
    if weight.ndim != dims + 2 or 0 in weight.shape[2:]:
        raise ValueError(
            f"{name} needs a weight of {dims + 2} dimensions, the last {dims} not empty, not shape {weight.shape}"
        )
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"{name}: groups={groups!r}, it must be an int of at least 1")


def _check_bias(name, bias, shape):
    if bias is not None and bias.shape != shape:
        raise ValueError(f"{name}: the bias has shape {bias.shape}, it must be {shape}")
