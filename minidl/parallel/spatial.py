"""Layers of images whose rows are split over a group: convolution and pooling, with the halos that they need.

Each rank has its rows of every image, as `uneven.parts` cuts its height, and finds its rows of the result. The weights
are whole on every rank, and their gradients on a rank are those of its rows.
"""

from __future__ import annotations

from functools import lru_cache

from minidl import nn, ops
from minidl.kernels.pooling_windows import Windows, regular
from minidl.nn.module import Module
from minidl.ops.images import sizes_of
from minidl.ops.pooling import AvgPool2d, MaxPool2d, pool_windows
from minidl.parallel.convolution import channels_last
from minidl.parallel.group import ProcessGroup
from minidl.parallel.halo import ROWS, ExchangeHalo, Halo, SpatialConv, TakeRows
from minidl.parallel.layers import summed_over, useful
from minidl.parallel.uneven import GatherUnevenly, parts
from minidl.tensor import Tensor


class SpatialConv2d(nn.Conv2d):
    """Conv2d of images of `rows` rows, which are split over `group`: this rank's rows of the result from its own.

    whole_input: the input is the whole images. pool: how many rows the windows of a pool have that takes the result;
    none of them is then cut, and rows beyond the last of them are left out. group: None or a group of one rank makes it
    a plain Conv2d. stride, padding and dilation are an int or a pair (vertical, horizontal). Between such layers, what
    else has parameters must be marked: `layers.summed_over(module, group)`. ValueError where the images or the results
    have fewer rows, or windows, than there are ranks.
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
        check_rows(self, x, self.rows if self.whole_input else len(self.halo.owned[self.group.rank]))
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
        check_rows(self, x, len(self.halo.owned[self.group.rank]))
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


def check_rows(layer: Module, x: Tensor, rows: int) -> None:
    """ValueError unless images x (batch, channels, height, width) have as many rows as this rank's part has."""
    if x.ndim != 4 or x.shape[2] != rows:
        raise ValueError(f"{type(layer).__name__} needs images (batch, channels, {rows}, width), not shape {x.shape}")


def parts_for(layer: Module, what: str, rows: int, group: ProcessGroup, multiple: int = 1) -> tuple[range, ...]:
    """Which of the rows of the images or results each rank has, a `multiple` of so many.

    ValueError, which names the layer and the axis, if a rank would have none.
    """
    if rows // multiple < group.size:
        times = f" × {multiple} (a window of the pool)" if multiple > 1 else ""
        raise ValueError(f"{type(layer).__name__}: its {what} have {rows} rows, they need {group}{times} at least")
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
