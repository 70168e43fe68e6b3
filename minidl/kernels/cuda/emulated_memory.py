"""Memory as the emulator has it: NumPy's, in which every access of a kernel is checked.

Two accesses to one element by different threads, of which one writes, are a race unless a barrier of their block lies
between them; no barrier lies between blocks.
"""

import numpy as np


class RaceError(RuntimeError):
    """Two threads touch one element, one of them writing, and nothing says which comes first."""


SEVERAL = "several"


class Now:
    """Where a launch is: which block, which thread of it, and after how many barriers."""

    def __init__(self):
        self.launch = self.block = self.epoch = 0
        self.thread = (0, 0, 0)
        self.shared: dict = {}

    def new_launch(self) -> None:
        self.launch += 1

    def new_block(self) -> None:
        self.block += 1
        self.epoch, self.shared = 0, {}


def poisoned(shape, dtype) -> np.ndarray:
    """New memory, with values that show when they are read: NaN, or the largest number."""
    dtype = np.dtype(dtype)
    value = np.nan if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max
    return np.full(shape, value, dtype)


class Storage:
    """The memory of one allocation on the emulated device, and who touched it in this launch."""

    def __init__(self, nbytes: int):
        self.bytes = np.full(nbytes, 0xFF, np.uint8)  # NaN as a float
        self.nbytes = nbytes
        self.touched: tuple[int, Touched] = (0, Touched())

    def touches(self, launch: int) -> "Touched":
        if self.touched[0] != launch:
            self.touched = launch, Touched()
        return self.touched[1]


class Touched:
    """Of each element, by its place in bytes, the last write and the last reads."""

    def __init__(self):
        self.writes: dict[int, tuple] = {}
        self.reads: dict[int, tuple] = {}


class DeviceMemory:
    """Elements of a storage, as they are handed to a kernel: 1-D."""

    def __init__(self, storage: Storage, offset: int, count: int, dtype):
        """offset: of the first element, in bytes."""
        self.storage, self.offset, self.dtype = storage, offset, np.dtype(dtype)
        self.values = storage.bytes[offset : offset + count * self.dtype.itemsize].view(self.dtype)

    def checked(self, now: Now | None) -> "Checked":
        """What a kernel sees; races are looked for unless `now` is None."""
        touched = self.storage.touches(now.launch) if now is not None else None
        return Checked(self.values, now, touched, self.offset)


class Checked:
    """An array as a thread sees it: indices must lie within the bounds, and threads must not race."""

    __slots__ = ("values", "shape", "dtype", "now", "touched", "first", "step")

    def __init__(self, values: np.ndarray, now: Now | None, touched: Touched | None = None, first: int = 0):
        """now: whose accesses are compared, None for nobody's. first: the place of element 0 in bytes."""
        self.values, self.shape, self.dtype, self.now, self.first = (
            values.reshape(-1),
            values.shape,
            values.dtype,
            now,
            first,
        )
        self.touched, self.step = touched or Touched(), values.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return len(self.values)

    def _flat(self, place) -> int:
        if isinstance(place, tuple):
            flat = 0
            for i, n in zip(place, self.shape, strict=True):
                if not 0 <= i < n:
                    raise IndexError(f"thread {self._who()} touches place {place} of an array of shape {self.shape}")
                flat = flat * n + i
            return flat
        if len(self.shape) > 1 or not 0 <= place < len(self.values):
            raise IndexError(f"thread {self._who()} touches place {place} of an array of shape {self.shape}")
        return place

    def _who(self):
        return None if self.now is None else self.now.thread

    def __getitem__(self, place):
        flat = self._flat(place)
        if self.now is not None:
            self._read(self.first + flat * self.step)
        return self.values[flat]

    def __setitem__(self, place, value) -> None:
        flat = self._flat(place)
        if self.now is not None:
            self._write(self.first + flat * self.step)
        self.values[flat] = value

    def change(self, place, function):
        """values[place] = function(values[place]) as one step that no other can race with -> the value before."""
        flat = self._flat(place)
        before = self.values[flat]
        self.values[flat] = function(before)
        return before

    def _read(self, at: int) -> None:
        now, touched = self.now, self.touched
        write = touched.writes.get(at)
        if write is not None:
            self._compare(write, at, "writes", "reads")
        block, epoch, thread = now.block, now.epoch, now.thread
        before = touched.reads.get(at)
        if before is not None and before[0] != block:
            block = SEVERAL
        elif before is not None and before[1] == epoch and before[2] != thread:
            thread = SEVERAL
        touched.reads[at] = block, epoch, thread

    def _write(self, at: int) -> None:
        touched = self.touched
        for others, how in ((touched.writes, "writes"), (touched.reads, "reads")):
            other = others.get(at)
            if other is not None:
                self._compare(other, at, how, "writes")
        now = self.now
        touched.writes[at] = now.block, now.epoch, now.thread

    def _compare(self, other: tuple, at: int, did: str, does: str) -> None:
        block, epoch, thread = other
        now = self.now
        if block == now.block and (epoch != now.epoch or thread == now.thread):
            return
        raise RaceError(
            f"thread {now.thread} of block {now.block} {does} element {(at - self.first) // self.step}, "
            f"which thread {thread} of block {block} {did} with no barrier between them"
        )
