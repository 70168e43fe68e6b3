"""Calls of a group's methods that Hypothesis draws: what each rank brings, and what NumPy says that it must get."""

from dataclasses import dataclass

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import minidl
from minidl.parallel.collective_arguments import REDUCTIONS

FLOATS = ("float16", "float32", "float64")
DTYPES = (*FLOATS, "int8", "int16", "int32", "int64", "uint8")
OF_TENSORS = ("float32", "float64", "int64")
ROWS = ((), (1,), (3,), (0,), (2, 2))  # shapes of a row
REDUCING = ("all_reduce", "reduce", "reduce_scatter")
JOINING = ("all_gather", "gather")


@dataclass(frozen=True)
class Call:
    """name: of a method. lengths: along dimension 0 what each rank brings. sizes: whether the call says so.

    splits: of an all_to_all, the rows from each rank to each; None where it says none. root: dst or src. into: whether
    an `out` is given.
    """

    name: str
    op: str
    dtype: str
    row: tuple[int, ...]
    lengths: tuple[int, ...]
    sizes: bool
    splits: tuple[tuple[int, ...], ...] | None
    root: int
    into: bool
    tensor: bool
    async_op: bool

    def brought(self):
        """What each rank brings, of values whose sums are exact in every dtype."""
        for rank, length in enumerate(self.lengths):
            values = np.random.default_rng([rank, length]).integers(0, 9, (length, *self.row))
            yield values.astype(self.dtype)

    def expected(self, rank):
        """What `rank` must get."""
        size, parts = len(self.lengths), list(self.brought())
        if self.name in REDUCING:
            total = REDUCTIONS[self.op].reduce(parts, axis=0, dtype=self.dtype)
            if self.op == "mean":
                total = (total / size).astype(self.dtype)
            if self.name == "reduce_scatter":
                return np.array_split(total, size)[rank]
            return total if self.name == "all_reduce" or rank == self.root else parts[rank]
        if self.name in JOINING:
            return np.concatenate(parts) if self.name == "all_gather" or rank == self.root else None
        if self.name == "all_to_all":
            if self.splits is None:
                return np.concatenate([np.array_split(part, size)[rank] for part in parts])
            cut = [np.split(p, np.cumsum(sent)[:-1]) for p, sent in zip(parts, self.splits, strict=True)]
            return np.concatenate([pieces[rank] for pieces in cut])
        return np.array_split(parts[self.root], size)[rank] if self.name == "scatter" else parts[self.root]

    def begin(self, group, like=None):
        """Call it on this rank: the result, or a handle. like: makes what is brought of a NumPy array."""
        x, options = list(self.brought())[group.rank], {"async_op": self.async_op}
        on_meta, like = like is not None, like or (minidl.tensor if self.tensor else np.array)
        if self.name in REDUCING:
            options["op"] = self.op
        if self.name in ("reduce", "gather"):
            options["dst"] = self.root
        if self.name in ("broadcast", "scatter"):
            options["src"] = self.root
        if self.sizes:
            options["sizes"] = self.lengths
        if self.into:
            options["out"] = like(np.empty_like(self.expected(group.rank)))
        if self.splits is not None:
            options["input_split_sizes"] = self.splits[group.rank]
            options["output_split_sizes"] = [sent[group.rank] for sent in self.splits]
        x = None if self.name == "scatter" and group.rank != self.root and not on_meta else like(x)
        return getattr(group, self.name)(x, **options)


@st.composite
def calls(draw, size):
    """Any call of a group of `size` ranks."""
    name = draw(st.sampled_from((*REDUCING, *JOINING, "all_to_all", "broadcast", "scatter")))
    op, length = draw(st.sampled_from(tuple(REDUCTIONS))), draw(st.integers(0, 11))
    sizes, splits, lengths = name in JOINING and draw(st.booleans()), None, (length,) * size
    each = st.tuples(*[st.integers(0, 4)] * size)
    if sizes:
        lengths = draw(each)
    if name == "all_to_all" and draw(st.booleans()):
        splits = draw(st.tuples(*[each] * size))
        lengths = tuple(map(sum, splits))
    dtype = draw(st.sampled_from(FLOATS if name in REDUCING and op == "mean" else DTYPES))
    tensor = dtype in OF_TENSORS and draw(st.booleans())
    into = name in ("all_gather", "reduce_scatter") and draw(st.booleans())
    row, root = draw(st.sampled_from(ROWS)), draw(st.integers(0, size - 1))
    return Call(name, op, dtype, row, lengths, sizes, splits, root, into, tensor, async_op=draw(st.booleans()))


def some(size, lists):
    """The same `lists` of calls in every process: of ranks that were not started together, as those of MPI."""
    found = []

    @settings(max_examples=lists, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(st.lists(calls(size), min_size=10, max_size=40))
    def keep(called):
        found.append(called)

    keep()
    return found


def make(group, called):
    """Begin the calls in order; those that are asynchronous are waited for at the end, the last one first."""
    results = [call.begin(group) for call in called]
    for call, result in reversed(list(zip(called, results, strict=True))):
        found, expected = result.wait() if call.async_op else result, call.expected(group.rank)
        if expected is None:
            assert found is None
            continue
        kind = minidl.Tensor if call.tensor or (call.name == "scatter" and group.rank != call.root) else np.ndarray
        assert type(found) is kind
        array = found.data if kind is minidl.Tensor else found
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype), call
        np.testing.assert_array_equal(array, expected, err_msg=str(call))
