"""Convolution and pooling of images whose rows are split over a group, with exchange of halos.

Dryden et al. 2019, "Improving strong-scaling of CNN training by exploiting finer-grained parallelism", section III.
Each rank has its rows of every image, as `uneven.parts` cuts its height, and finds its rows of the result. The windows
of these reach into rows of its neighbours, the halo, which they send it; the gradients of the halo go back to them.
The weights are whole on every rank, and their gradients on a rank are those of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from minidl import nn, ops
from minidl.kernels.windows import Windows, regular
from minidl.nn.module import Module
from minidl.ops.images import sizes_of
from minidl.ops.pooling import AvgPool2d, MaxPool2d, pool_windows
from minidl.parallel.conjugates import CollectiveOp
from minidl.parallel.convolution import channels_last, summed_over
from minidl.parallel.group import ProcessGroup
from minidl.parallel.layers import useful
from minidl.parallel.uneven import GatherUnevenly, part_of, parts
from minidl.tensor import Tensor

ROWS = 1  # the dimension of (batch, height, width, channels) that is split


@dataclass(frozen=True)
class Halo:
    """Which rows of an image each rank has, `owned`, and which it needs; rows outside of the image are padding."""

    owned: tuple[range, ...]
    needed: tuple[range, ...]

    @property
    def height(self) -> int:
        return self.owned[-1].stop

    def sent(self, source: int, to: int) -> range:
        """The rows that rank `to` needs of those of rank `source`."""
        return common(self.owned[source], self.needed[to])


class ExchangeHalo(CollectiveOp):
    """Images (batch, owned rows, width, channels) -> (batch, needed rows, width, channels); rows of padding are zeros.

    Backward: the gradients of the rows go to the ranks that own them, and are added up there.
    """

    def __init__(self, group: ProcessGroup, halo: Halo):
        super().__init__(group)
        self.halo = halo

    def forward(self, x):
        k, group, halo = self.kernels, self.group, self.halo
        owned, needed = halo.owned[group.rank], halo.needed[group.rank]
        sending = [
            group.send(_rows(k, x, owned, rows), rank, async_op=True)
            for rank in self._others()
            if (rows := halo.sent(group.rank, rank))
        ]
        out = k.empty((x.shape[0], len(needed), *x.shape[2:]), x.dtype)
        own = common(owned, needed)
        k.assign(_rows(k, out, needed, own), _rows(k, x, owned, own))
        _fill_outside(k, out, needed, range(halo.height))
        for rank in self._others():
            if rows := halo.sent(rank, group.rank):
                group.recv(_rows(k, out, needed, rows), rank)
        for handle in sending:
            handle.wait()
        return out

    def backward(self, grad):
        k, group, halo = self.kernels, self.group, self.halo
        owned, needed = halo.owned[group.rank], halo.needed[group.rank]
        sending = [
            group.send(_rows(k, grad, needed, rows), rank, async_op=True)
            for rank in self._others()
            if (rows := halo.sent(rank, group.rank))
        ]
        out = k.empty((grad.shape[0], len(owned), *grad.shape[2:]), grad.dtype)
        own = common(owned, needed)
        k.assign(_rows(k, out, owned, own), _rows(k, grad, needed, own))
        _fill_outside(k, out, owned, own)
        for rank in self._others():
            if rows := halo.sent(group.rank, rank):
                part = k.empty((out.shape[0], len(rows), *out.shape[2:]), out.dtype)
                k.accumulate(_rows(k, out, owned, rows), group.recv(part, rank))
        for handle in sending:
            handle.wait()
        return out

    def _others(self):
        return (rank for rank in range(self.group.size) if rank != self.group.rank)


class TakeRows(CollectiveOp):
    """Of images (batch, channels, height, width), which every rank has whole, the rows of `needed`.

    Zeros where they are padded. Backward: the sum of the ranks' gradients.
    """

    def __init__(self, group: ProcessGroup, needed: range):
        super().__init__(group)
        self.needed = needed

    def forward(self, x):
        k, image, needed = self.kernels, range(x.shape[2]), self.needed
        self.shape, inside = x.shape, common(image, needed)
        rows = part_of(k, x, 2, inside)
        around = (inside.start - needed.start, needed.stop - inside.stop)
        return k.pad(rows, ((0, 0), (0, 0), around, (0, 0)), 0) if any(around) else k.copy(rows)

    def backward(self, grad):
        k, needed = self.kernels, self.needed
        out = k.full(self.shape, 0, grad.dtype)
        inside = common(range(self.shape[2]), needed)
        within = range(inside.start - needed.start, inside.stop - needed.start)
        k.assign(part_of(k, out, 2, inside), part_of(k, grad, 2, within))
        return self.group.all_reduce(out)


class SpatialConv2d(nn.Conv2d):
    """Conv2d of images of `rows` rows, which are split over `group`: this rank's rows of the result from its own.

    whole_input: the input is the whole images. group: None or a group of one rank makes it a plain Conv2d. stride,
    padding and dilation are an int or a pair (vertical, horizontal). ValueError where the images or the results have
    fewer rows than there are ranks.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, rows: int, group: ProcessGroup | None = None,
        stride=1, padding=0, dilation=1, bias: bool = True, whole_input: bool = False,
    ):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)
        self.rows, self.group, self.whole_input = rows, useful(group), whole_input
        if self.group is None:
            return
        summed_over(self, self.group)
        (step, _), (before, self.beside), (apart, _) = (
            sizes_of("SpatialConv2d", option, getattr(self, option), 2, least)
            for option, least in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        span = apart * (self.kernel_size[0] - 1) + 1
        starts = range(-before, rows + before - span + 1, step)
        self.halo = halo_of(self, rows, tuple(range(start, start + span) for start in starts), self.group)

    def forward(self, x: Tensor) -> Tensor:  # (batch, channels, own rows, width)
        if self.group is None:
            return super().forward(x)
        if self.whole_input:
            x = TakeRows(self.group, self.halo.needed[self.group.rank])(x)
        else:
            x = with_halo(x, self.group, self.halo)
        return ops.conv2d(x, self.weight, self.bias, self.stride, (0, self.beside), self.dilation)

    def extra_repr(self):
        return f"{super().extra_repr()}, rows={self.rows}, ranks={self.group.size if self.group else 1}"


class _SpatialPool(Module):
    """What the pooling layers share, before a pool of whole images among the bases."""

    op: type[MaxPool2d] | type[AvgPool2d]
    dilation: int | tuple[int, int] = 1
    count_include_pad = True

    def split(self, rows: int, group: ProcessGroup | None) -> None:
        """To be called when the options are known."""
        self.rows, self.group = rows, useful(group)
        if self.group is not None:
            name = type(self).__name__
            names = "kernel_size", "stride", "padding", "dilation"
            k, s, p, d = (sizes_of(name, n, getattr(self, n), 2, n != "padding")[0] for n in names)
            windows = regular(rows, k, s, p, d, self.ceil_mode)
            spans = tuple(range(start, stop) for start, stop in zip(windows.starts, windows.stops, strict=True))
            self.halo = halo_of(self, rows, spans, self.group)

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
    """MaxPool2d of images of `rows` rows, which are split over `group`: see SpatialConv2d."""

    op = MaxPool2d

    def __init__(
        self, kernel_size, rows: int, group: ProcessGroup | None = None, stride=None, padding=0, dilation=1, *,
        ceil_mode: bool = False,
    ):  # fmt: skip
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        self.split(rows, group)


class SpatialAvgPool2d(_SpatialPool, nn.AvgPool2d):
    """AvgPool2d of images of `rows` rows, which are split over `group`: see SpatialConv2d."""

    op = AvgPool2d

    def __init__(
        self, kernel_size, rows: int, group: ProcessGroup | None = None, stride=None, padding=0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ):  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.split(rows, group)


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


def halo_of(layer: Module, rows: int, windows: tuple[range, ...], group: ProcessGroup) -> Halo:
    """What each rank needs of an image of `rows` rows for its part of the rows of the result, made of `windows` each.

    ValueError, which names the layer and the axis, if a rank would have no row.
    """
    for what, count in (("images", rows), ("results", len(windows))):
        if count < group.size:
            axes = " × ".join(map(str, group.axes))
            raise ValueError(
                f"{type(layer).__name__}: its {what} have {count} rows, {axes}={group.size} needs as many at least"
            )
    needed = (windows[part.start : part.stop] for part in parts(len(windows), group.size))
    spans = tuple(range(min(w.start for w in some), max(w.stop for w in some)) for some in needed)
    return Halo(parts(rows, group.size), spans)


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


def _fill_outside(kernels, x, held: range, rows: range) -> None:
    """Zeros where x (batch, held rows, …) has other than `rows`."""
    inside = common(held, rows)
    for outside in (range(held.start, inside.start), range(inside.stop, held.stop)):
        if outside:
            kernels.fill(_rows(kernels, x, held, outside), 0)
