"""Memory as the emulator has it: NumPy's, in which every access of a kernel is checked.

Two accesses to one element by different threads, of which one writes, are a race unless a barrier of their block lies
between them; no barrier lies between blocks.
"""

import functools
import itertools
import math

import numpy as np


class RaceError(RuntimeError):
    """Two threads touch one element, one of them writing, and nothing says which comes first."""


class Now:
    """Where a launch is: which block, after how many barriers, and which thread of it: the `stamp` of an access."""

    def __init__(self):
        self.launch = self.block = self.epoch = 0
        self.stamp = (0, 0, (0, 0, 0))
        self.shared: dict = {}

    def new_launch(self) -> None:
        self.launch += 1

    def new_block(self) -> None:
        self.block += 1
        self.epoch, self.shared = 0, {}

    def enter(self, thread: tuple[int, int, int]) -> None:
        self.stamp = self.block, self.epoch, thread


SEVERAL = "several"  # blocks or threads, in a stamp


def poisoned(shape, dtype) -> np.ndarray:
    """New memory, with values that show when they are read: NaN, or the largest number."""
    dtype = np.dtype(dtype)
    value = np.nan if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max
    return np.full(shape, value, dtype)


class Touched:
    """Of each element, the stamps of the last write and of the last reads."""

    def __init__(self) -> None:
        self.writes: dict[int, tuple] = {}
        self.reads: dict[int, tuple] = {}

    def read(self, at: int, stamp: tuple) -> None:
        write = self.writes.get(at)
        if write is not None and write is not stamp:
            _compare(write, "writes", stamp, "reads")
        before = self.reads.get(at)
        if before is stamp:
            return
        if before is not None and before[0] != stamp[0]:
            stamp = SEVERAL, stamp[1], stamp[2]
        elif before is not None and before[1] == stamp[1] and before[2] != stamp[2]:
            stamp = stamp[0], stamp[1], SEVERAL
        self.reads[at] = stamp

    def write(self, at: int, stamp: tuple) -> None:
        for others, did in ((self.writes, "writes"), (self.reads, "reads")):
            other = others.get(at)
            if other is not None and other is not stamp:
                _compare(other, did, stamp, "writes")
        self.writes[at] = stamp


def _compare(other: tuple, did: str, stamp: tuple, does: str) -> None:
    """RaceError if nothing says which of two accesses comes first."""
    if other[0] != stamp[0] or (other[1] == stamp[1] and other[2] != stamp[2]):
        raise _race(other, did, stamp, does)


def _race(other: tuple, did: str, stamp: tuple, does: str) -> RaceError:
    return RaceError(
        f"thread {stamp[2]} of block {stamp[0]} {does} an element that thread {other[2]} of block {other[0]} {did}, "
        "with no barrier between them"
    )


class Storage:
    """The memory of one allocation on the emulated device, and who touched it in this launch."""

    def __init__(self, nbytes: int):
        self.bytes = np.full(nbytes, 0xFF, np.uint8)  # NaN as a float
        self.nbytes = nbytes
        self._touched: tuple[int, Touched] = (0, Touched())

    def touches(self, launch: int) -> Touched:
        if self._touched[0] != launch:
            self._touched = launch, Touched()
        return self._touched[1]


class DeviceMemory:
    """Elements of a storage, as they are handed to a kernel: 1-D."""

    def __init__(self, storage: Storage, offset: int, count: int, dtype):
        """offset: of the first element, in bytes."""
        self.storage, self.offset, self.dtype = storage, offset, np.dtype(dtype)
        self.values = storage.bytes[offset : offset + count * self.dtype.itemsize].view(self.dtype)

    def seen(self, now: Now | None) -> "Row":
        """What threads see: they are looked at for races unless `now` is None."""
        return Row(self.values) if now is None else WatchedRow(self, now)


class Row:
    """A row of elements as a thread sees it: places must lie within its bounds."""

    __slots__ = ("dtype", "shape", "size", "values")

    def __init__(self, values: np.ndarray):
        self.values, self.size, self.shape, self.dtype = values, len(values), values.shape, values.dtype

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place):
        if not 0 <= place < self.size:
            raise _outside(place, self.shape)
        return self.values[place]

    def __setitem__(self, place, value) -> None:
        if not 0 <= place < self.size:
            raise _outside(place, self.shape)
        self.values[place] = value

    def change(self, place, function):
        """values[place] = function(values[place]) as one step that no other can race with -> the value before."""
        before = Row.__getitem__(self, place)
        self.values[place] = function(before)
        return before


class WatchedRow(Row):
    """A row in memory that the kernel writes to."""

    __slots__ = ("first", "now", "step", "touched")

    def __init__(self, memory: DeviceMemory, now: Now):
        super().__init__(memory.values)
        self.now, self.touched = now, memory.storage.touches(now.launch)
        self.first, self.step = memory.offset, memory.dtype.itemsize  # other rows may lie in the same storage

    def __getitem__(self, place):
        value = Row.__getitem__(self, place)
        self.touched.read(self.first + place * self.step, self.now.stamp)
        return value

    def __setitem__(self, place, value) -> None:
        Row.__setitem__(self, place, value)
        self.touched.write(self.first + place * self.step, self.now.stamp)


class SharedArray:
    """Memory of a block, of one or more dimensions: only its threads touch it, so that barriers alone say the order.

    Most accesses of an emulated kernel are to it, which is why its lines are few.
    """

    __slots__ = ("dtype", "now", "places", "reads", "shape", "values", "writes")

    def __init__(self, shape, dtype, now: Now):
        self.shape = shape if isinstance(shape, tuple) else (shape,)
        self.values, self.now, self.places = poisoned(math.prod(self.shape), dtype), now, _places(shape)
        self.dtype = self.values.dtype
        self.writes: list[tuple | None] = [None] * self.values.size
        self.reads: list[tuple | None] = [None] * self.values.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place):
        if place not in self.places:
            raise _outside(place, self.shape)
        flat, stamp = self.places[place], self.now.stamp
        write = self.writes[flat]
        if write is not None and write[1] == stamp[1] and write[2] != stamp[2]:
            raise _race(write, "writes", stamp, "reads")
        before = self.reads[flat]
        if before is not None and before[1] == stamp[1] and before[2] != stamp[2]:
            stamp = stamp[0], stamp[1], SEVERAL
        self.reads[flat] = stamp
        return self.values[flat]

    def __setitem__(self, place, value) -> None:
        if place not in self.places:
            raise _outside(place, self.shape)
        flat, stamp = self.places[place], self.now.stamp
        for others, did in ((self.writes, "writes"), (self.reads, "reads")):
            other = others[flat]
            if other is not None and other[1] == stamp[1] and other[2] != stamp[2]:
                raise _race(other, did, stamp, "writes")
        self.writes[flat] = stamp
        self.values[flat] = value

    def change(self, place, function):
        """As that of a Row."""
        if place not in self.places:
            raise _outside(place, self.shape)
        flat = self.places[place]
        before = self.values[flat]
        self.values[flat] = function(before)
        return before


@functools.cache
def _places(shape) -> dict:
    """Where the elements of an array of this shape lie: by ints for one dimension, by tuples for more."""
    if isinstance(shape, tuple):
        return {place: flat for flat, place in enumerate(itertools.product(*map(range, shape)))}
    return {place: place for place in range(shape)}


def _outside(place, shape) -> IndexError:
    return IndexError(f"a thread touches place {place} of an array of shape {shape}")
