"""The emulator runs Numba's kernels thread by thread, and what is wrong in them shows."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minidl.kernels.cuda import emulator
from minidl.kernels.cuda import emulator as cuda
from minidl.kernels.cuda.emulated_memory import DeviceMemory, RaceError, Storage

BLOCK = 128
F = np.float32


def on_device(values):
    values = np.ascontiguousarray(values)
    storage = Storage(values.nbytes)
    storage.bytes[:] = values.reshape(-1).view(np.uint8)
    return DeviceMemory(storage, 0, values.size, values.dtype)


@pytest.fixture(params=["forward", "reversed"], autouse=True)
def order(request, monkeypatch):
    monkeypatch.setattr(emulator, "order", request.param)


@cuda.jit
def fill_places(out):
    i = cuda.grid(1)
    if i < len(out):
        out[i] = i


@cuda.jit(device=True)
def add_up(part, x):
    """The sum of x over the block, for all its threads."""
    lane = cuda.threadIdx.x
    part[lane] = x
    cuda.syncthreads()
    half = BLOCK // 2
    while half:
        if lane < half:
            part[lane] += part[lane + half]
        cuda.syncthreads()
        half //= 2
    return part[0]


@cuda.jit
def block_sums(x, out):
    part = cuda.shared.array(BLOCK, F)
    i = cuda.grid(1)
    total = add_up(part, x[i] if i < len(x) else F(0))
    if cuda.threadIdx.x == 0:
        out[cuda.blockIdx.x] = total


@cuda.jit
def warp_sums(x, out):
    total = x[cuda.grid(1)]
    distance = 16
    while distance:
        total += cuda.shfl_xor_sync(0xFFFFFFFF, total, distance)
        distance //= 2
    out[cuda.grid(1)] = total


@cuda.jit
def neighbours(x, out):
    out[cuda.threadIdx.x] = cuda.shfl_down_sync(0xFFFFFFFF, x[cuda.threadIdx.x], 1)


@cuda.jit
def transpose(x, out):
    column, row = cuda.grid(2)
    columns, rows = cuda.gridsize(2)
    out[column * rows + row] = x[row * columns + column]


@pytest.mark.parametrize("size", [1, 127, 128, 300])
def test_every_thread_of_the_grid_runs_once(size):
    out = on_device(np.full(size, -1))
    fill_places[-(-size // BLOCK), BLOCK](out)
    assert np.array_equal(out.values, np.arange(size))


@pytest.mark.parametrize("size", [1, 128, 333])
def test_threads_wait_for_each_other_in_functions_that_a_kernel_calls(size):
    x, out = on_device(np.arange(size, dtype=F)), on_device(np.zeros(-(-size // BLOCK), F))
    block_sums[len(out.values), BLOCK](x, out)
    assert np.array_equal(out.values, np.add.reduceat(x.values, np.arange(0, size, BLOCK)))


def test_a_shuffle_exchanges_within_a_warp():
    x, out = on_device(np.arange(64, dtype=F)), on_device(np.zeros(64, F))
    warp_sums[1, 64](x, out)
    assert np.array_equal(out.values, np.repeat(x.values.reshape(2, 32).sum(1), 32))


def test_a_shuffle_from_beyond_the_warp_gives_a_thread_its_own_value():
    x, out = on_device(np.arange(64, dtype=F)), on_device(np.zeros(64, F))
    neighbours[1, 64](x, out)
    assert np.array_equal(out.values, [i + (i % 32 != 31) for i in range(64)])


def test_blocks_and_grids_have_several_dimensions():
    x, out = on_device(np.arange(6 * 20)), on_device(np.zeros(6 * 20, np.int64))
    transpose[(5, 2), (4, 3)](x, out)
    assert np.array_equal(out.values.reshape(20, 6), x.values.reshape(6, 20).T)


def test_launches_are_counted_by_name():
    before = emulator.launches["fill_places"]
    fill_places[1, 1](on_device(np.zeros(1, int)))
    assert emulator.launches["fill_places"] == before + 1


def test_a_breakpoint_in_a_kernel_is_reached_by_every_thread():
    lines = []

    def trace(frame, event, argument):
        if frame.f_code.co_name == "fill_places":
            if event == "line" and frame.f_locals.get("i") is not None:
                lines.append((frame.f_lineno, frame.f_locals["i"]))
            return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        fill_places[1, 3](on_device(np.zeros(3, int)))
    finally:
        sys.settrace(before)
    line = fill_places.py_func.__code__.co_firstlineno + 3
    assert sorted(i for number, i in lines if number == line) == [0, 1, 2]


# Known-wrong kernels


@cuda.jit
def shuffled_by(mask, x, out):
    out[cuda.threadIdx.x] = cuda.shfl_xor_sync(mask, x[cuda.threadIdx.x], 8)


@cuda.jit
def without_a_barrier(x, out):
    part = cuda.shared.array(BLOCK, F)
    lane = cuda.threadIdx.x
    part[lane] = x[lane]
    out[lane] = part[(lane + 1) % BLOCK]


@cuda.jit
def overwritten_too_early(x, out):
    part = cuda.shared.array(BLOCK, F)
    lane = cuda.threadIdx.x
    for turn in range(2):
        part[lane] = x[lane] + turn
        cuda.syncthreads()
        out[lane] = part[(lane + 1) % BLOCK]


@cuda.jit
def added_without_atomics(x, out):
    out[0] += x[cuda.grid(1)]


@cuda.jit
def reversed_in_place(x):
    x[len(x) - 1 - cuda.grid(1)] = x[cuda.grid(1)]


@cuda.jit
def read_from_another_block(x, out):
    out[cuda.grid(1)] = x[cuda.grid(1)]
    cuda.syncthreads()
    x[0] = out[(cuda.grid(1) + BLOCK) % len(out)]


@cuda.jit
def one_too_far(x, out):
    i = cuda.grid(1)
    if i <= len(out):
        out[i] = x[i]


@cuda.jit
def one_too_low(x, out):
    out[cuda.grid(1)] = x[cuda.grid(1) - 1]


@cuda.jit
def shared_too_small(x, out):
    part = cuda.shared.array(BLOCK - 1, F)
    part[cuda.threadIdx.x] = x[cuda.grid(1)]


@cuda.jit
def different_barriers(x, out):
    if cuda.threadIdx.x < 64:
        cuda.syncthreads()
    else:
        cuda.syncthreads()


@cuda.jit
def uninitialised(x, out):
    part = cuda.shared.array(BLOCK, F)
    out[cuda.threadIdx.x] = part[cuda.threadIdx.x]


@cuda.jit
def added_atomically(x, out):
    cuda.atomic.add(out, 0, x[cuda.grid(1)])


@pytest.mark.parametrize("kernel", [without_a_barrier, overwritten_too_early], ids=lambda k: k.__name__)
def test_a_missing_barrier_is_found(kernel):
    x, out = on_device(np.arange(BLOCK, dtype=F)), on_device(np.zeros(BLOCK, F))
    with pytest.raises(RaceError, match="no barrier between"):
        kernel[1, BLOCK](x, out)


def test_a_race_for_the_memory_of_the_device_is_found():
    x, out = on_device(np.ones(2 * BLOCK, F)), on_device(np.zeros(2 * BLOCK, F))
    for kernel in added_without_atomics, read_from_another_block:
        with pytest.raises(RaceError, match="no barrier between"):
            kernel[2, BLOCK](x, out)
    with pytest.raises(RaceError):
        reversed_in_place[1, BLOCK](on_device(np.ones(BLOCK, F)))


def test_atomic_additions_are_no_race():
    x, out = on_device(np.ones(2 * BLOCK, F)), on_device(np.zeros(1, F))
    added_atomically[2, BLOCK](x, out)
    assert out.values[0] == 2 * BLOCK


@pytest.mark.parametrize("kernel", [one_too_far, one_too_low, shared_too_small], ids=lambda k: k.__name__)
def test_an_access_out_of_bounds_is_found(kernel):
    x, out = on_device(np.zeros(BLOCK, F)), on_device(np.zeros(BLOCK, F))
    with pytest.raises(IndexError, match="of an array of shape"):
        kernel[2, BLOCK](x, out)


def test_threads_that_wait_at_different_barriers_are_found():
    x = on_device(np.zeros(BLOCK, F))
    with pytest.raises(RuntimeError, match="different barriers: lines"):
        different_barriers[1, BLOCK](x, x)


def test_new_memory_is_full_of_nan():
    out = on_device(np.zeros(BLOCK, F))
    uninitialised[1, BLOCK](out, out)
    assert np.isnan(out.values).all()
    assert np.isnan(Storage(8).bytes.view(F)).all()


@pytest.mark.parametrize("threads, mask, what", [
    (12, 0xFFFFFFFF, "of a warp asks lane 1[2-5], that is not there"),
    (32, 0xFFFF00FF, "of a warp asks lane .*, the mask 0xffff00ff does not name both"),
])  # fmt: skip
def test_a_shuffle_with_a_lane_that_is_not_there_or_not_named_is_refused(threads, mask, what):
    x, out = on_device(np.zeros(32, F)), on_device(np.zeros(32, F))
    shuffled_by[1, 16](0xFFFF, x, out)
    with pytest.raises(RuntimeError, match=what):
        shuffled_by[1, threads](mask, x, out)


def test_launches_by_several_threads_of_python_come_one_after_another():
    def filled(size):
        out = on_device(np.full(size, -1))
        fill_places[-(-size // BLOCK), BLOCK](out)
        return np.array_equal(out.values, np.arange(size))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(filled, range(290, 310)))
