"""Convolution and pooling of images whose rows are split over a group, with exchange of halos.

Dryden et al. 2019, "Improving strong-scaling of CNN training by exploiting finer-grained parallelism", section III.
Each rank has its rows of every image, as `uneven.parts` cuts its height, and finds its rows of the result. The windows
of these reach into rows of its neighbours, the halo, which they send it; the gradients of the halo go back to them.
The weights are whole on every rank, and their gradients on a rank are those of its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

from minidl import nn, ops
from minidl.kernels.windows import Windows, regular
from minidl.nn.module import Module
from minidl.ops.convolution import Conv2d
from minidl.ops.images import sizes_of
from minidl.ops.pooling import AvgPool2d, MaxPool2d, pool_windows
from minidl.parallel.conjugates import CollectiveOp
from minidl.parallel.convolution import FIRST, LAST, channels_last, summed_over
from minidl.parallel.group import ProcessGroup
from minidl.parallel.layers import useful
from minidl.parallel.uneven import GatherUnevenly, part_of, parts
from minidl.tensor import Tensor

ROWS = 1  # the dimension of (batch, height, width, channels) that is split


@dataclass(frozen=True)
class Halo:
    """Which rows of an image each rank has, `owned`, and which it needs; rows outside of the image are zeros."""

    owned: tuple[range, ...]
    needed: tuple[range, ...]

    @property
    def back(self) -> Halo:
        """How what the ranks make of the rows they need gets back to those that own them."""
        return Halo(self.needed, self.owned)

    def exchange(self, kernels: ModuleType, group: ProcessGroup, x, add: bool = False) -> Callable[[], object]:
        """Begin to make of x (batch, owned rows, …) what this rank needs, (batch, needed rows, …).

        The function that is returned waits for the rows of other ranks. add: rows that several ranks have are summed.
        """
        rank, others = group.rank, [other for other in range(group.size) if other != group.rank]
        owned, needed = self.owned[rank], self.needed[rank]
        sending = [
            group.send(_rows(kernels, x, owned, rows), other, async_op=True)
            for other in others
            if (rows := common(owned, self.needed[other]))
        ]
        out, own = kernels.empty((x.shape[0], len(needed), *x.shape[2:]), x.dtype), common(owned, needed)
        kernels.assign(_rows(kernels, out, needed, own), _rows(kernels, x, owned, own))
        for outside in (range(needed.start, own.start), range(own.stop, needed.stop)):
            if outside:
                kernels.fill(_rows(kernels, out, needed, outside), 0)

        def finish():
            for other in others:
                if rows := common(self.owned[other], needed):
                    place = _rows(kernels, out, needed, rows)
                    if add:
                        kernels.accumulate(place, group.recv(kernels.empty(place.shape, x.dtype), other))
                    else:
                        group.recv(place, other)
            for handle in sending:
                handle.wait()
            return out

        return finish


class ExchangeHalo(CollectiveOp):
    """Images (batch, owned rows, width, channels) -> (batch, needed rows, width, channels); rows of padding are zeros.

    Backward: the gradients of the rows go to the ranks that own them, and are added up there.
    """

    def __init__(self, group: ProcessGroup, halo: Halo):
        super().__init__(group)
        self.halo = halo

    def forward(self, x):
        return self.halo.exchange(self.kernels, self.group, x)()

    def backward(self, grad):
        return self.halo.back.exchange(self.kernels, self.group, grad, add=True)()


class SpatialConv(CollectiveOp, Conv2d):
    """This rank's rows of a convolution, of its rows of x and the halo that it gets.

    Backward gets a halo of the gradient of the result, while it computes the weight's, and so finds the whole gradient
    of its rows of x: it adds up nothing from other ranks and computes no row twice.
    """

    def __init__(self, group: ProcessGroup, halo: Halo, results: tuple[range, ...], padding: int, *options):
        """results: the rows of the result that each rank has. padding: the vertical one, which the halo has in it."""
        CollectiveOp.__init__(self, group)
        Conv2d.__init__(self, *options)
        self.halo, self.results, self.vertical = halo, results, padding

    def forward(self, x, weight, bias=None):
        k = self.kernels
        self.given = x.shape
        x = self.halo.exchange(k, self.group, k.permute(x, LAST))()
        return Conv2d.forward(self, k.permute(x, FIRST), weight, bias)

    def backward(self, grad):  # (n, o, own rows of the result, out_width)
        k, exchanged = self.kernels, None
        if self.needs[0]:
            halo, padding = gradient_halo(self.halo.owned, self.results, self.vertical, *self._vertical())
            exchanged = halo.exchange(k, self.group, k.permute(grad, LAST))
        grad_weight = self.weight_gradient(grad) if self.needs[1] else None
        bias = [self.bias_gradient(grad) if needed else None for needed in self.needs[2:]]
        if exchanged is None:
            return None, grad_weight, *bias
        stride, (_, beside), dilation, groups = self.options
        options = stride, (padding[self.group.rank], beside), dilation, groups
        around = k.permute(exchanged(), FIRST)
        return k.conv2d_grad_input(around, self.weight, self.given, *options), grad_weight, *bias

    def _vertical(self) -> tuple[int, int]:
        """The stride, and how far a window reaches from its first row."""
        (step, _), _, (apart, _), _ = self.options
        return step, apart * (self.shapes[1][2] - 1)


@lru_cache
def gradient_halo(
    owned: tuple[range, ...], results: tuple[range, ...], padding: int, step: int, reach: int
) -> tuple[Halo, list[int]]:
    """Which rows of the gradient of the result each rank takes for the gradient of its `owned` rows of the input.

    And with which padding it is then that of a convolution of these rows: row i of the result has seen the rows from
    step × i - padding to `reach` further on. Where step > 1 there may be a row among them that it does not need.
    """
    needed, paddings = [], []
    for rows in owned:
        first = (rows.start + padding - reach) // step
        before = rows.start + padding - step * first  # from `reach` to before `reach` + `step`
        needed.append(range(first, first + (len(rows) + 2 * before - reach - 1) // step + 1))
        paddings.append(before)
    return Halo(results, tuple(needed)), paddings


class TakeRows(CollectiveOp):
    """Of images (batch, channels, height, width), which every rank has whole, the rows of `needed`.

    Zeros where they are padded. Backward: the sum of the ranks' gradients.
    """

    def __init__(self, group: ProcessGroup, needed: range):
        super().__init__(group)
        self.needed = needed

    def forward(self, x):
        k = self.kernels
        self.shape, self.inside = x.shape, common(range(x.shape[2]), self.needed)
        if self.inside == self.needed:
            return k.copy(part_of(k, x, 2, self.inside))
        out = k.full((*x.shape[:2], len(self.needed), x.shape[3]), 0, x.dtype)
        k.assign(self._inside_of(out), part_of(k, x, 2, self.inside))
        return out

    def backward(self, grad):
        k = self.kernels
        out = k.full(self.shape, 0, grad.dtype)
        k.assign(part_of(k, out, 2, self.inside), self._inside_of(grad))
        return self.group.all_reduce(out)

    def _inside_of(self, x):
        """The view of those rows of x (n, c, needed rows, width) that are in the image."""
        start = self.needed.start
        return part_of(self.kernels, x, 2, range(self.inside.start - start, self.inside.stop - start))


class SpatialConv2d(nn.Conv2d):
    """Conv2d of images of `rows` rows, which are split over `group`: this rank's rows of the result from its own.

    whole_input: the input is the whole images. pool: how many rows the windows of a pool have that takes the result;
    none of them is then cut, and rows beyond the last of them are left out. group: None or a group of one rank makes it
    a plain Conv2d. stride, padding and dilation are an int or a pair (vertical, horizontal). ValueError where the
    images or the results have fewer rows, or windows, than there are ranks.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, rows: int, group: ProcessGroup | None = None,
        stride=1, padding=0, dilation=1, bias: bool = True, whole_input: bool = False, pool: int = 1,
    ):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)
        self.rows, self.group, self.whole_input = rows, useful(group), whole_input
        if self.group is None:
            return
        summed_over(self, self.group)
        self.sizes = tuple(
            sizes_of("SpatialConv2d", option, getattr(self, option), 2, least)
            for option, least in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        (step, _), (before, _), (apart, _) = self.sizes
        span = apart * (self.kernel_size[0] - 1) + 1
        starts = range(-before, rows + before - span + 1, step)
        self.results = parts_for(self, "results", len(starts), self.group, pool)
        windows = tuple(range(start, start + span) for start in starts)
        self.halo = Halo(parts_for(self, "images", rows, self.group), reached(windows, self.results))

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, own rows, width)
        if self.group is None:
            return super().forward(x)
        stride, (before, beside), dilation = self.sizes
        inputs = (x, self.weight) if self.bias is None else (x, self.weight, self.bias)
        options = stride, (0, beside), dilation
        if self.whole_input:
            x = TakeRows(self.group, self.halo.needed[self.group.rank])(x)
            return ops.conv2d(x, self.weight, self.bias, *options)
        return SpatialConv(self.group, self.halo, self.results, before, *options, 1)(*inputs)

    def extra_repr(self):
        return f"{super().extra_repr()}, rows={self.rows}, ranks={self.group.size if self.group else 1}"


class _SpatialPool(Module):
    """What the pooling layers share, before a pool of whole images among the bases."""

    op: type[MaxPool2d] | type[AvgPool2d]
    dilation: int | tuple[int, int] = 1
    count_include_pad = True

    def split(self, rows: int, group: ProcessGroup | None, uncut: bool) -> None:
        """To be called when the options are known."""
        self.rows, self.group = rows, useful(group)
        if self.group is not None:
            name = type(self).__name__
            names = "kernel_size", "stride", "padding", "dilation"
            k, s, p, d = (sizes_of(name, n, getattr(self, n), 2, n != "padding")[0] for n in names)
            windows = regular(rows, k, s, p, d, self.ceil_mode)
            spans = tuple(range(start, stop) for start, stop in zip(windows.starts, windows.stops, strict=True))
            results = parts_for(self, "results", len(windows), self.group)
            owned = parts_for(self, "images", rows, self.group, k if uncut else 1)
            self.halo = Halo(owned, reached(spans, results))

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, own rows, width)
        if self.group is None:
            return super().forward(x)
        rows, columns = pool_windows(
            type(self).__name__, (self.rows, x.shape[3]), self.kernel_size, self.stride, self.padding, self.dilation,
            self.ceil_mode, self.count_include_pad,
        )  # fmt: skip
        own = own_windows(rows, self.halo.needed[self.group.rank], self.group.size, self.group.rank)
        return self.op(own, columns)(with_halo(x, self.group, self.halo))

    def extra_repr(self):
        return f"{super().extra_repr()}, rows={self.rows}, ranks={self.group.size if self.group else 1}"


class SpatialMaxPool2d(_SpatialPool, nn.MaxPool2d):
    """MaxPool2d of images of `rows` rows, which are split over `group`: see SpatialConv2d.

    uncut: the images are split between windows, as a SpatialConv2d with `pool` leaves them.
    """

    op = MaxPool2d

    def __init__(
        self, kernel_size, rows: int, group: ProcessGroup | None = None, stride=None, padding=0, dilation=1, *,
        ceil_mode: bool = False, uncut: bool = False,
    ):  # fmt: skip
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        self.split(rows, group, uncut)


class SpatialAvgPool2d(_SpatialPool, nn.AvgPool2d):
    """AvgPool2d of images of `rows` rows, which are split over `group`: see SpatialMaxPool2d."""

    op = AvgPool2d

    def __init__(
        self, kernel_size, rows: int, group: ProcessGroup | None = None, stride=None, padding=0,
        ceil_mode: bool = False, count_include_pad: bool = True, *, uncut: bool = False,
    ):  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.split(rows, group, uncut)


class GatherRows(Module):
    """Images of `rows` rows (batch, channels, own rows, width) -> the whole ones, on every rank of `group`."""

    def __init__(self, rows: int, group: ProcessGroup | None):
        self.rows, self.group = rows, useful(group)

    def forward(self, x: Tensor) -> Tensor:
        if self.group is None:
            return x
        sizes = [len(part) for part in parts(self.rows, self.group.size)]
        return channels_last(GatherUnevenly(self.group, ROWS, sizes), x)


def with_halo(x: Tensor, group: ProcessGroup, halo: Halo) -> Tensor:
    """The rows of images (batch, channels, own rows, width) that this rank needs: x itself where each rank has its."""
    return x if halo.needed == halo.owned else channels_last(ExchangeHalo(group, halo), x)


def parts_for(layer: Module, what: str, rows: int, group: ProcessGroup, multiple: int = 1) -> tuple[range, ...]:
    """Which of the rows of the images or results each rank has, a `multiple` of so many.

    ValueError, which names the layer and the axis, if a rank would have none.
    """
    if rows // multiple < group.size:
        axes, times = " × ".join(map(str, group.axes)), f" × {multiple}" if multiple > 1 else ""
        raise ValueError(
            f"{type(layer).__name__}: its {what} have {rows} rows, they need {axes}={group.size}{times} at least"
        )
    return parts(rows, group.size, multiple)


def reached(windows: tuple[range, ...], results: tuple[range, ...]) -> tuple[range, ...]:
    """The rows that each rank needs, which are in the windows of its results."""
    of_ranks = (windows[part.start : part.stop] for part in results)
    return tuple(range(min(w.start for w in some), max(w.stop for w in some)) for some in of_ranks)


@lru_cache
def own_windows(windows: Windows, needed: range, size: int, rank: int) -> Windows:
    """The windows of rank `rank` of `size`, along the rows that it `needed`."""
    own = parts(len(windows), size)[rank]
    place = slice(own.start, own.stop)
    starts, stops = windows.starts[place] - needed.start, windows.stops[place] - needed.start
    return Windows(len(needed), starts, stops, windows.step, windows.divisors[place])


def common(a: range, b: range) -> range:
    """The numbers in both, which may be none."""
    start = max(a.start, b.start)
    return range(start, max(start, min(a.stop, b.stop)))


def _rows(kernels, x, held: range, rows: range):
    """The view of x (batch, held rows, …) that has `rows` of them."""
    return part_of(kernels, x, ROWS, range(rows.start - held.start, rows.stop - held.start))
