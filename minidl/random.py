"""Where random numbers come from: a generator keyed by what the numbers are for, never by who draws them.

A parameter is drawn from (seed, its name), a permutation of the data from (seed, epoch), a dropout mask from (seed,
step, sample, layer). So every rank of every plan sees the numbers that the one-worker run sees.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

_default = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Start the default generator again from `seed`."""
    global _default
    _default = np.random.default_rng(seed)


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
    return np.random.default_rng([seed, *words])


@dataclass
class Scope:
    """Names the dropout masks and noise drawn inside it: (seed, step, sample, layer).

    samples: the index of each row of the batch in the data set. block: the index of the running block in the chain;
    with the count of masks drawn in it, that is the layer.
    """

    seed: int
    step: int
    samples: np.ndarray
    block: int = 0
    masks: int = field(default=0)

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


def uniform(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 in [0, 1) for a mask over `shape`, whose first dimension is the samples: keyed inside a scope."""
    if _scope is None:
        return _default.random(shape, np.float32)
    s = _scope
    s.masks += 1
    if len(s.samples) != shape[0]:
        raise ValueError(
            f"a mask over shape {shape} in a random.scope of {len(s.samples)} samples: name as many as rows"
        )
    key = np.zeros(1, np.uint64)
    for word in (s.seed, s.block, s.masks, s.step):
        key = _mix(key ^ np.uint64(word % 2**64)) + np.uint64(0x9E3779B97F4A7C15)
    rows = _mix(key ^ s.samples.astype(np.uint64))  # (samples,)
    elements = np.arange(math.prod(shape[1:]), dtype=np.uint64)
    bits = _mix(rows[:, None] + elements * np.uint64(0x9E3779B97F4A7C15))  # (samples, elements)
    return ((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)).reshape(shape)


def normal(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 of mean 0 and variance 1, whose first dimension is the samples: keyed inside a scope."""
    if _scope is None:
        return _default.standard_normal(shape, np.float32)
    radius = np.sqrt(-2 * np.log1p(-uniform(shape)))  # Box and Muller 1958
    return radius * np.cos(np.float32(2 * math.pi) * uniform(shape))


def _mix(x):
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): 64 well-mixed bits of each element of an array."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
