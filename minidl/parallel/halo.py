"""The exchange of halos between ranks that have some rows of every image each, and what is computed with them.

Dryden et al. 2019, "Improving strong-scaling of CNN training by exploiting finer-grained parallelism", section III. The
windows of a rank's rows of a result reach into rows of its neighbours, the halo, which they send it. The layers are in
spatial.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

from minidl.ops.convolution import Conv2d
from minidl.parallel.conjugates import CollectiveOp
from minidl.parallel.convolution import FIRST, LAST
from minidl.parallel.group import ProcessGroup
from minidl.parallel.uneven import part_of

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

        The function that is returned waits for the rows of other ranks; it gives x itself where nothing changes. add:
        rows that several ranks have are summed.
        """
        rank, others = group.rank, [other for other in range(group.size) if other != group.rank]
        owned, needed = self.owned[rank], self.needed[rank]
        sending = [
            group.send(_rows(kernels, x, owned, rows), other, async_op=True)
            for other in others
            if (rows := common(owned, self.needed[other]))
        ]
        coming = {other: rows for other in others if (rows := common(self.owned[other], needed))}
        out = x if owned == needed and not coming else self._own_rows(kernels, x, owned, needed)
        places = [_rows(kernels, out, needed, rows) for rows in coming.values()]
        arriving = [kernels.empty(place.shape, x.dtype) for place in places] if add else places
        receiving = [group.recv(rows, other, async_op=True) for rows, other in zip(arriving, coming, strict=True)]

        def finish():
            for handle in (*receiving, *sending):
                handle.wait()
            if add:
                for place, rows in zip(places, arriving, strict=True):
                    kernels.accumulate(place, rows)
            return out

        return finish

    @staticmethod
    def _own_rows(kernels: ModuleType, x, owned: range, needed: range):
        """x with the rows `needed` instead of `owned`; zeros where it has none."""
        out, own = kernels.empty((x.shape[0], len(needed), *x.shape[2:]), x.dtype), common(owned, needed)
        kernels.assign(_rows(kernels, out, needed, own), _rows(kernels, x, owned, own))
        for outside in (range(needed.start, own.start), range(own.stop, needed.stop)):
            if outside:
                kernels.fill(_rows(kernels, out, needed, outside), 0)
        return out


class ExchangeHalo(CollectiveOp):
    """Images (batch, owned rows, width, channels) -> (batch, needed rows, width, channels); rows of padding are zeros.

    Backward: the gradients of the rows go to the ranks that own them, and are added up there.
    """

    passes_gradient = True

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


def common(a: range, b: range) -> range:
    """The numbers in both, which may be none."""
    start = max(a.start, b.start)
    return range(start, max(start, min(a.stop, b.stop)))


def _rows(kernels, x, held: range, rows: range):
    """The view of x (batch, held rows, …) that has `rows` of them."""
    return part_of(kernels, x, ROWS, range(rows.start - held.start, rows.stop - held.start))
