"""Convolutions split over a group by the channels of their results, by those of their inputs, or by the batch.

As for linear layers (layers.py), a convolution split by the channels of its result leaves them split, and one that is
split by the channels of its input takes them so and sums what its ranks find (Dryden et al. 2019, "Channel and filter
parallelism for large-scale CNN training", SC'19).
"""

from functools import partial

from minidl import nn, ops
from minidl.nn.cut import Cut
from minidl.nn.module import Module
from minidl.op import Op
from minidl.ops.convolution import Conv2d, convolve
from minidl.parallel.conjugates import CollectiveOp, Gather, Slice, all_gather, reduce_scatter
from minidl.parallel.group import ProcessGroup
from minidl.parallel.layers import check_divisible, cut, summed_over, useful
from minidl.parallel.uneven import GatherUnevenly, SliceUnevenly
from minidl.tensor import Tensor

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # the order of dimensions with channels last, and that from there back


class ColumnConv2d(CollectiveOp, Conv2d):
    """This rank's channels (n, o / size, …) of the convolution of x, which every rank has whole.

    Backward sums the ranks' gradients of x while it computes the weight's.
    """

    def __init__(self, group: ProcessGroup, *options):
        CollectiveOp.__init__(self, group)
        Conv2d.__init__(self, *options)

    def backward(self, grad):  # (n, o / size, out_height, out_width)
        grad_x = handle = None
        if self.needs[0]:
            grad_x = self.input_gradient(grad)
            handle = self.group.all_reduce(as_it_lies(self.kernels, grad_x), async_op=True)
        grad_weight = self.weight_gradient(grad) if self.needs[1] else None
        bias = [self.bias_gradient(grad) if needed else None for needed in self.needs[2:]]
        if handle is not None:
            handle.wait()
        return grad_x, grad_weight, *bias


class RowConv2d(CollectiveOp, Conv2d):
    """The convolution of x, of which a rank has its channels (n, c / size, …): the sum of what the ranks find.

    The bias is added once, after the sum. scatter_output: each rank gets its channels (n, o / size, …) of the sum
    alone, with its part of the bias.
    """

    def __init__(self, group: ProcessGroup, scatter_output: bool, *options):
        CollectiveOp.__init__(self, group)
        Conv2d.__init__(self, *options)
        self.scatter_output = scatter_output

    def forward(self, x, weight, bias=None):
        k = self.kernels
        y = Conv2d.forward(self, x, weight)  # (n, o, out_height, out_width), a part of the sum
        if self.scatter_output:
            y = k.permute(reduce_scatter(k, self.group, k.permute(y, LAST), -1), FIRST)  # (n, o / size, …)
        else:
            self.group.all_reduce(as_it_lies(k, y))
        if bias is not None:
            k.accumulate(k.permute(y, LAST), bias)
        return y

    def backward(self, grad):
        k = self.kernels
        bias = [self.bias_gradient(grad) if needed else None for needed in self.needs[2:]]
        if self.scatter_output and any(self.needs[:2]):
            grad = k.permute(all_gather(k, self.group, k.permute(grad, LAST), -1), FIRST)
        grad_x = self.input_gradient(grad) if self.needs[0] else None
        return grad_x, self.weight_gradient(grad) if self.needs[1] else None, *bias


class ColumnParallelConv2d(nn.Conv2d):
    """Conv2d whose `out_channels` are split over `group`: takes whole images, gives this rank's channels of the result.

    group: None or a group of one rank makes it a plain Conv2d. gather_output: gives all channels. ValueError where the
    channels do not divide.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, group: ProcessGroup | None = None, stride=1, padding=0,
        dilation=1, bias: bool = True, gather_output: bool = False,
    ):  # fmt: skip
        self.group, self.gather_output = useful(group), gather_output
        check_divisible("ColumnParallelConv2d", "out_channels", out_channels, self.group)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)

    def held(self, shape: tuple[int, ...]) -> Cut:
        return cut(shape, 0, self.group)

    def forward(self, x: Tensor) -> Tensor:
        if self.group is None:
            return super().forward(x)
        y = _convolve(self, partial(ColumnConv2d, self.group), x)  # (n, o / size, …)
        return channels_last(Gather(self.group, -1), y) if self.gather_output else y

    def extra_repr(self):
        return f"{super().extra_repr()}, ranks={self.group.size if self.group else 1}"


class RowParallelConv2d(nn.Conv2d):
    """Conv2d whose `in_channels` are split over `group`: takes this rank's channels, gives the whole result.

    whole_input: takes all channels, of which it uses this rank's. scatter_output: gives this rank's channels of the
    result. The bias is added once, after the sum. group: None or a group of one rank makes it a plain Conv2d.
    ValueError where the channels do not divide.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, group: ProcessGroup | None = None, stride=1, padding=0,
        dilation=1, bias: bool = True, scatter_output: bool = False, whole_input: bool = False,
    ):  # fmt: skip
        self.group, self.scatter_output, self.whole_input = useful(group), scatter_output, whole_input
        check_divisible("RowParallelConv2d", "in_channels", in_channels, self.group)
        if scatter_output:
            check_divisible("RowParallelConv2d", "out_channels", out_channels, self.group)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)

    def held(self, shape: tuple[int, ...]) -> Cut:
        if len(shape) > 1:
            return cut(shape, 1, self.group)
        return cut(shape, 0, self.group) if self.scatter_output else Cut(shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.group is None:
            return super().forward(x)
        if self.whole_input:
            x = channels_last(Slice(self.group, -1), x)  # (n, c / size, …)
        return _convolve(self, partial(RowConv2d, self.group, self.scatter_output), x)

    def extra_repr(self):
        return f"{super().extra_repr()}, ranks={self.group.size if self.group else 1}"


class BatchParallelConv2d(nn.Conv2d):
    """Conv2d of this rank's samples; of all of them, which are then split over `group`, with `whole_input`.

    Between such layers, what else has parameters must be marked: `layers.summed_over(module, group)`. group: None or a
    group of one rank makes it a plain Conv2d.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, group: ProcessGroup | None = None, stride=1, padding=0,
        dilation=1, bias: bool = True, whole_input: bool = False,
    ):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)
        self.group, self.whole_input = useful(group), whole_input
        summed_over(self, self.group)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(SliceUnevenly(self.group, 0)(x) if self.group and self.whole_input else x)


class GatherBatch(Module):
    """The samples of this rank -> those of all ranks of `group`, on every rank."""

    def __init__(self, group: ProcessGroup | None):
        self.group = useful(group)

    def forward(self, x: Tensor) -> Tensor:
        return GatherUnevenly(self.group, 0)(x) if self.group else x


class GatherChannels(Module):
    """Images with this rank's channels -> those with all channels, on every rank of `group`."""

    def __init__(self, group: ProcessGroup | None):
        self.group = useful(group)

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(Gather(self.group, -1), x) if self.group else x


def channels_last(op: Op, x: Tensor) -> Tensor:
    """`op` of images (batch, channels, height, width) that are given to it as (batch, height, width, channels).

    So they lie in memory between convolutions on the CPU, and an op that slices or joins them copies long rows.
    """
    return ops.permute(op(ops.permute(x, LAST)), FIRST)


def as_it_lies(kernels, x):
    """A view of images x whose dimensions are in the order of memory, contiguous if there is one."""
    return x if kernels.is_contiguous(x) else kernels.permute(x, LAST)


def _convolve(layer: nn.Conv2d, op, x: Tensor) -> Tensor:
    options = layer.stride, layer.padding, layer.dilation, 1
    return convolve(type(layer).__name__, 2, x, layer.weight, layer.bias, *options, op)
