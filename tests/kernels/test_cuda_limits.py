"""What a GPU and 32 bits allow: grids within their bounds, and no array that kernels could not count to the end of."""

import numpy as np
import pytest

from minidl.kernels import for_device
from minidl.kernels.cuda import columns, device, kernel_launch, reduction
from minidl.kernels.cuda.array import LARGEST, CudaArray

cuda = for_device("cuda")


@pytest.mark.parametrize("blocks", [(1, 65_536), (1, 1, 65_536), (2**31, 1)])
def test_a_grid_that_no_gpu_takes_is_refused(monkeypatch, blocks):
    monkeypatch.setattr(device, "launch", lambda *given: pytest.fail("it was launched"))
    with pytest.raises(ValueError, match=r"blocks for minidl\S+column_sums: a GPU takes at most \(2147483647, 65535"):
        kernel_launch.launch(columns.column_sums_kernel("both", False, kernel_launch.THREADS, np.float32), blocks, 1)


def test_a_long_reduction_has_no_more_parts_than_a_grid_has_blocks():
    x = CudaArray((70_000_000, 32), np.float32, storage=cuda.empty((1,), np.float32).storage)
    plan = reduction.Plan(x, {0})
    assert plan.side_by_side and plan.blocks[1] == reduction.PARTS < kernel_launch.LARGEST_GRID[1]


@pytest.mark.parametrize("dim", [0, 1, None])
def test_what_many_parts_would_reduce_few_reduce_too(monkeypatch, dim):
    x = np.random.default_rng(0).integers(9, size=(3000, 3))
    monkeypatch.setattr(reduction, "PARTS", 2)
    assert np.array_equal(cuda.to_numpy(cuda.sum(cuda.array(x, x.dtype), dim, False)), x.sum(dim))
    assert np.array_equal(cuda.to_numpy(cuda.argmax(cuda.array(x, x.dtype), dim)), x.argmax(dim))


def test_what_many_parts_would_add_up_by_columns_few_do_too(monkeypatch):
    x = np.random.default_rng(0).integers(9, size=(1000, 33)).astype(np.float32)
    a, one = cuda.array(x, x.dtype), cuda.full((33,), 1, np.float32)
    monkeypatch.setattr(columns, "PARTS", 2)
    for found in columns.column_sums("both", a, a, one, one):
        assert np.array_equal(cuda.to_numpy(found), x.sum(0))


@pytest.mark.parametrize("shape", [(2**32,), (2**16, 2**16), (LARGEST + 1,)])
def test_more_elements_than_32_bits_count_are_refused(shape):
    with pytest.raises(ValueError, match="cuda allows 4,293,918,720"):
        cuda.empty(shape, np.bool_)
    with pytest.raises(ValueError, match="cuda allows 4,293,918,720"):
        cuda.broadcast_to(cuda.full((1,), 0, np.bool_), shape)
