"""Where random numbers come from: a generator keyed by what the numbers are for, never by who draws them.

A parameter is drawn from (seed, its name), a permutation of the data from (seed, epoch), a dropout mask from (seed,
step, sample, layer). So every rank of every plan sees the numbers that the one-worker run sees. And so does every
device: generators draw on the CPU, and the numbers of a mask come from Philox, whose words a GPU computes as well.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from minidl import philox


def _philox(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key))


_default = _philox(0)


def manual_seed(seed: int) -> None:
    """Start the default generator again from `seed`."""
    global _default
    _default = _philox(seed)


def default_generator() -> np.random.Generator:
    """The generator of everything that is not keyed: eager initialisation, `rand`, dropout outside `train`."""
    return _default


@contextmanager
def drawing_from(generator: np.random.Generator) -> Iterator[None]:
    """Have `generator` be the default generator inside the `with` block."""
    global _default
    before, _default = _default, generator
    try:
        yield
    finally:
        _default = before


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """A generator of its own for each (seed, key)."""
    words = [zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key]
    return _philox(seed, *words)


@dataclass
class Scope:
    """Names the dropout masks and noise drawn inside it: (seed, step, sample, layer).

    samples: the index of each row of the batch in the data set. block: the index of the running block in the chain;
    with the count of masks drawn in it, that is the layer. positions: where the rows of the second dimension lie in the
    whole of which they are a part, rising; None where it is whole.
    """

    seed: int
    step: int
    samples: np.ndarray
    block: int = 0
    masks: int = field(default=0)
    positions: np.ndarray | None = None

    def enter_block(self, block: int) -> None:
        self.block, self.masks = block, 0


_scope: Scope | None = None


@contextmanager
def scope(new: Scope) -> Iterator[Scope]:
    """Draw dropout masks from the keys of `new` inside the `with` block."""
    global _scope
    outer, _scope = _scope, new
    try:
        yield new
    finally:
        _scope = outer


@contextmanager
def slice_of_sequence(index: int, count: int, length: int) -> Iterator[None]:
    """In the `with` block, arrays hold slice `index` of the `count` slices, each of `length`, of their dimension 1."""
    if _scope is None:
        yield
        return
    before = _scope.positions
    of_all = np.arange(count * length) if before is None else before
    _scope.positions = of_all[index * length : (index + 1) * length]
    try:
        yield
    finally:
        _scope.positions = before


@dataclass(frozen=True, eq=False)
class Stream:
    """Which random words a mask gets, so that whoever draws an element needs nothing but its place.

    The words 4 q to 4 q + 3 of a sample are those of the counter (q, sample, step) under the key, with the sample in
    two words, the lower first. key: 64 bits. step: 32 bits. samples: int64 (rows,). per_sample: elements of a row.
    start: where they begin among the elements of the sample.
    """

    key: int
    step: int
    samples: np.ndarray
    per_sample: int
    start: int = 0

    @property
    def key_words(self) -> tuple[np.uint32, np.uint32]:
        """The lower and the upper half of the key."""
        return np.uint32(self.key % 2**32), np.uint32(self.key >> 32)


def stream(shape: tuple[int, ...]) -> Stream:
    """The words of the next mask over `shape`, whose first dimension is the samples, whole.

    Inside a scope they are keyed. Outside, the key comes from the default generator, and all is one sample. ValueError
    in a scope that has a part of the second dimension alone: `drawn` knows of it.
    """
    if _scope is not None and _scope.positions is not None:
        raise ValueError(
            f"a mask over shape {shape}, of which there is a part of the sequence alone, is drawn in parts"
        )
    return _stream(shape)


def _stream(shape: tuple[int, ...]) -> Stream:
    if _scope is None:
        key = int(_default.integers(2**64, dtype=np.uint64))
        return Stream(key, 0, np.zeros(1, np.int64), math.prod(shape))
    s = _scope
    s.masks += 1
    if len(s.samples) != shape[0]:
        raise ValueError(
            f"a mask over shape {shape} in a random.scope of {len(s.samples)} samples: name as many as rows"
        )
    key = np.random.SeedSequence((s.seed % 2**64, s.block, s.masks)).generate_state(1, np.uint64)
    return Stream(int(key[0]), s.step % 2**32, s.samples.astype(np.int64), math.prod(shape[1:]))


def drawn(shape: tuple[int, ...], draw: Callable[[tuple[int, ...], Stream], np.ndarray]) -> np.ndarray:
    """What `draw` makes for the next mask over `shape`, of its stream.

    Where the scope has a part of the second dimension alone, each run of it comes from its place in the whole.
    """
    s, positions = _stream(shape), _scope and _scope.positions
    if positions is None:
        return draw(shape, s)
    if len(shape) < 2 or shape[1] != len(positions):
        raise ValueError(f"a mask over shape {shape}, of whose second dimension there are {len(positions)} positions")
    width, pieces = math.prod(shape[2:]), []
    for run in np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1):
        piece = (shape[0], len(run), *shape[2:])
        pieces.append(draw(piece, replace(s, per_sample=len(run) * width, start=int(run[0]) * width)))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, 1)


def uniform(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 in [0, 1) for a mask over `shape`, from the upper 24 bits of the words of its stream."""
    return drawn(shape, uniform_of)


def uniform_of(shape: tuple[int, ...], s: Stream) -> np.ndarray:
    """Float32 in [0, 1) from the upper 24 bits of the words of a stream, of which `shape` has the elements."""
    first, skipped = divmod(s.start, 4)
    counters = np.arange(first, first - (-(skipped + s.per_sample) // 4), dtype=np.uint32)
    low, high = s.samples.astype(np.uint32)[:, None], (s.samples >> 32).astype(np.uint32)[:, None]
    words = np.stack(philox.philox(counters, low, high, np.uint32(s.step), *s.key_words), axis=-1)
    words = words.reshape(len(s.samples), 4 * len(counters))[:, skipped : skipped + s.per_sample]
    return philox.uniform(words).reshape(shape)


def normal(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 of mean 0 and variance 1, whose first dimension is the samples: keyed inside a scope."""
    if _scope is None:
        return _default.standard_normal(shape, np.float32)
    radius = np.sqrt(-2 * np.log1p(-uniform(shape)))  # Box and Muller 1958
    return radius * np.cos(np.float32(2 * math.pi) * uniform(shape))
