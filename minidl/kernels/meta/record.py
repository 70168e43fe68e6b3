"""MetaArray, an array without elements; KernelCall, what one kernel call would cost; `record`, which collects them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Literal

from minidl.kernels import memory_order


class Storage:
    """The memory that an array would have, of `nbytes`."""

    __slots__ = ("nbytes", "__weakref__")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes


class MetaArray(memory_order.LaidOut):
    """An array without elements. Views of one array share its `storage`, so that memory is counted once.

    storage: that of the array of which this is a view, None for memory of its own. strides: as LaidOut has them.
    """

    __slots__ = ("storage",)

    def __init__(
        self, shape: tuple[int, ...], dtype, storage: Storage | None = None, strides: memory_order.Strides = None
    ):
        super().__init__(shape, dtype, strides)
        self.storage = storage if storage is not None else Storage(self.nbytes)


Kind = Literal[
    "product", "convolution", "elementwise", "reduction", "normalisation", "copy", "update", "view"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One kernel call: `shapes` are those of its arrays, the result last; a matrix product's is (batch, m, n, k).

    kind, by which it is priced:
        product: a matrix product; convolution: one, or the gradient of its input or weight;
        elementwise: from the elements at one place comes the element there: arithmetic, comparisons, activations,
            dropout, the cells of recurrent layers, what is added in place;
        reduction: elements are put together along dimensions or where they meet: sums, extremes, products, running
            sums, sorting, pooling, losses of a whole row, gradients that are added up by indices;
        normalisation: rows or channels by their own statistics: softmax, layer, RMS, batch and group norm;
        copy: elements as they are, perhaps in another dtype or place: gathered, padded, joined, filled in, loaded;
        update: an optimizer's, of parameters and its state, whose float32 is kept in every precision;
        view: the same memory in another shape: it moves nothing.
        A gradient is of its kernel's kind, unless it is added up by indices.
    dtype: of the result. options: a convolution's stride, padding, dilation and groups; of a matrix product, how its
    operands lie in memory, each N by rows or T by columns ("NT": by the transpose of a matrix), and whether it is added
    to what the result holds; of attention in tiles, the share of the pairs of query and key that are seen. algorithm:
    of a convolution, "winograd", "direct" or "windows", as minidl.kernels.algorithms chooses for the CPU; "" where
    there is no choice.
    recomputed: of the FLOPs those of what forward had computed but not kept.
    """

    name: str
    kind: Kind
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    flops: int
    bytes_read: int
    bytes_written: int
    options: tuple = ()
    algorithm: str = ""
    recomputed: int = 0


_profile: list | None = None
name_of = lru_cache(64)(attrgetter("name"))  # of a dtype, which NumPy puts together each time it is asked


@contextmanager
def record() -> Iterator[list]:
    """Collect, in order, the calls made in the `with` block: KernelCalls and what groups add with `note`."""
    global _profile
    outer, _profile = _profile, []
    try:
        yield _profile
    finally:
        _profile = outer


def note(call) -> None:
    """Add a call to the profile being recorded, if any."""
    if _profile is not None:
        _profile.append(call)


def result(
    name, inputs, shape, dtype, flops_per_element=1, flops=None, shapes=None, read=None, also_written=(), options=(),
    strides=None, kind="elementwise", algorithm="", recomputed=0,
):  # fmt: skip
    """A new array, and the record of the kernel that fills it (and `also_written`) from `inputs`."""
    out = MetaArray(tuple(shape), dtype, strides=strides)
    if _profile is not None:
        if flops is None:
            flops = flops_per_element * out.size
        if read is None:
            read = sum(x.nbytes for x in inputs)
        shapes = shapes or (*(x.shape for x in inputs), out.shape)
        written = out.nbytes + sum(x.nbytes for x in also_written)
        call = KernelCall(name, kind, shapes, name_of(out.dtype), flops, read, written, options, algorithm, recomputed)
        _profile.append(call)
    return out


def elementwise_strides(arrays, shape) -> memory_order.Strides:
    """Those of a new array that NumPy makes of `arrays` element by element."""
    if all(x.contiguous for x in arrays):
        return None
    return memory_order.elementwise([(x.shape, x.strides) for x in arrays], tuple(shape))


def view(name, x, shape, strides=None):
    """The same storage in another shape: no FLOPs, no bytes, but a call all the same."""
    shape = tuple(shape)
    if _profile is not None:
        _profile.append(KernelCall(name, "view", (x.shape, shape), name_of(x.dtype), 0, 0, 0))
    return MetaArray(shape, x.dtype, x.storage, strides)


def in_place(name, target, reads, flops, also_written=(), kind="elementwise"):
    """`target` (and `also_written`) is overwritten from the arrays `reads`."""
    if _profile is not None:
        shapes = tuple(x.shape for x in reads)
        read = sum(x.nbytes for x in reads)
        written = target.nbytes + sum(x.nbytes for x in also_written)
        _profile.append(KernelCall(name, kind, (*shapes, target.shape), name_of(target.dtype), flops, read, written))


def reduce_to_number(name, x, flops, more_reads=(), also_written=(), kind="reduction"):
    """A number is made of `x` and `more_reads`, and `also_written` overwritten: 1.0 stands for what nobody knows."""
    if _profile is not None:
        reads = (x, *more_reads, *also_written)
        read, written = sum(a.nbytes for a in reads), sum(a.nbytes for a in also_written)
        _profile.append(KernelCall(name, kind, (*(a.shape for a in reads), ()), name_of(x.dtype), flops, read, written))
    return 1.0
