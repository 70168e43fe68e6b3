"""Arena and Heap: shared rows, symmetric offsets, and memory that is free again when its array is dropped."""

import gc
import mmap
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.arena import LINE, Arena, Heap

ROW = 1 << 22


def arena(rows=2):
    return Arena(rows, ROW)


def test_a_second_mapping_of_the_same_file_sees_the_same_bytes():
    first = arena()
    second = Arena(2, ROW, os.dup(first.fd))
    first.view(1, 64, (3,), np.float32)[:] = [1, 2, 3]
    np.testing.assert_array_equal(second.view(1, 64, (3,), np.float32), [1, 2, 3])
    second.words[second.word(1, 8)] = -5
    assert first.words[first.word(1, 8)] == -5
    assert first.view(1, 8, (), np.int64)[()] == -5


def test_the_memory_has_no_name():
    before = set(os.listdir("/dev/shm"))
    kept = arena()
    assert set(os.listdir("/dev/shm")) == before
    assert "memfd" in os.readlink(f"/proc/self/fd/{kept.fd}")


def test_rows_are_pages_and_cost_nothing_until_touched():
    whole = Arena(4)
    assert whole.row_bytes % mmap.PAGESIZE == 0 and whole.row_bytes >= 1 << 28
    assert os.fstat(whole.fd).st_blocks == 0
    whole.view(3, 0, (10,), np.float64)[:] = 1
    assert os.fstat(whole.fd).st_blocks * 512 <= 2 * mmap.PAGESIZE


def test_a_contiguous_array_of_the_arena_has_an_offset_from_the_start_of_any_row():
    shared = arena()
    x = shared.view(1, 128, (4, 4), np.float32)
    assert shared.offset_in(1, x) == 128 and shared.offset_in(1, x[2:]) == 160
    assert shared.offset_in(0, x) == shared.row_bytes + 128  # and so others find what lies in another's row
    assert shared.offset_in(1, shared.view(0, 0, (4,), np.float32)) == -shared.row_bytes
    assert shared.offset_in(1, x.T[1:]) is None
    assert shared.offset_in(1, np.zeros(4)) is None


def test_two_heaps_that_do_the_same_give_the_same_offsets():
    shared = arena()
    heaps = [Heap(shared, row, 4096) for row in range(2)]
    kept = []
    for heap in heaps:
        own = [heap.empty((n,), "float32") for n in (1, 100, 5000, 300_000)]
        del own[1]
        own.append(heap.empty((90,), "float32"))
        kept.append([shared.offset_in(heap.row, x) for x in own])
    assert kept[0] == kept[1]


REQUESTS = st.tuples(st.integers(0, 3000), st.sampled_from(["float32", "float64", "bool"]))


@given(st.lists(REQUESTS, max_size=30), st.data())
def test_arrays_that_live_never_overlap_and_lie_on_cache_lines(requests, choose):
    shared = arena(1)
    heap, living = Heap(shared, 0, LINE), []
    for size, dtype in requests:
        x = heap.empty((size,), dtype)
        assert x.shape == (size,) and x.dtype == dtype
        x[...] = len(living) % 2
        living.append((x, x.copy()))
        if living and choose.draw(st.booleans()):
            living.pop(choose.draw(st.integers(0, len(living) - 1)))
    spans = sorted((shared.offset_in(0, x), x.nbytes) for x, _ in living if x.size)
    assert all(offset % LINE == 0 for offset, _ in spans)
    assert all(a + n <= b for (a, n), (b, _) in zip(spans, spans[1:], strict=False))
    for x, copy in living:
        np.testing.assert_array_equal(x, copy)


def test_memory_is_kept_by_any_view_and_free_after_the_last():
    heap = Heap(arena(1), 0, 0)
    x = heap.empty((10, 10), "float64")
    view = x[2:].reshape(-1)[5:].view("int64")
    place = x.ctypes.data
    del x
    gc.collect()
    other = heap.empty((10, 10), "float64")
    assert other.ctypes.data != place  # `view` still needs it
    del view
    gc.collect()
    assert heap.empty((10, 10), "float64").ctypes.data == place


def test_a_full_row_says_so():
    heap = Heap(arena(1), 0, 0)
    with pytest.raises(MemoryError, match=r"the shared row of rank 0 \(4 MiB\) is full"):
        heap.empty((ROW,), "float64")
    x = heap.empty((ROW // 8,), "float64")
    with pytest.raises(MemoryError, match="full"):
        heap.empty((1,), "bool")
    del x
    assert heap.empty((ROW // 8,), "float64").size == ROW // 8
