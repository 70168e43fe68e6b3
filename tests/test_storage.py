"""What shares memory counts once, on every device."""

import numpy as np

from minidl.arena import Arena, Heap
from minidl.kernels import cpu, meta
from minidl.kernels.meta import MetaArray
from minidl.storage import on_meta, placement, storage, storages


def test_views_of_one_array_count_once_with_all_its_bytes():
    x, other = np.zeros((4, 6), np.float32), np.zeros(3)
    views = x[1:2], x.T, x.reshape(-1)[5:], other
    assert sorted(storages(views).values()) == [24, 96]
    m = MetaArray((4, 6), "float32")
    views = meta.index(m, (slice(1, 2),)), meta.swap_last(m), meta.reshape(m, (24,)), MetaArray((3,), "float64")
    assert sorted(storages(views).values()) == [24, 96]


def test_a_broadcast_array_counts_as_what_it_repeats():
    assert list(storages([np.broadcast_to(np.zeros(3), (1000, 3))]).values()) == [24]
    assert list(storages([meta.broadcast_to(MetaArray((3,), "float64"), (1000, 3))]).values()) == [24]


def test_an_array_in_shared_memory_counts_without_the_arena():
    arena = Arena(2, 1 << 20)
    heap = Heap(arena, 1, 4096)
    x, y = heap.empty((10, 7), np.float32), heap.empty((5,), np.float64)
    assert storage(x) is storage(x[2:4].T)
    assert sorted(storages([x, x[3], y, x.reshape(-1)]).values()) == [40, 280]


def test_a_number_does_not_count():
    assert storages([np.array(1.5), MetaArray((), "float64")]) == {}


def test_an_array_on_meta_lies_as_the_one_it_stands_for():
    x = cpu.permute(np.zeros((2, 3, 4), np.float32), (0, 2, 1))[:, 1:]
    found = on_meta(x)
    assert (found.shape, found.dtype, found.nbytes) == (x.shape, x.dtype, x.nbytes)
    assert found.strides == (12, 1, 4) and storage(found).nbytes == 96
    assert placement(found) == placement(on_meta(found)) != placement(MetaArray(x.shape, x.dtype))
