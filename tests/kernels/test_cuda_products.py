"""Matrix products on the GPU, in the emulator: the plain kernel and the one by tiles against NumPy."""

import numpy as np
import pytest

from minidl.kernels import cpu, for_device
from minidl.kernels.cuda import emulator, products, tiled
from minidl.kernels.cuda.array import CudaArray

pytestmark = pytest.mark.usefixtures("thread_order")
cuda = for_device("cuda")
RNG = np.random.default_rng(0)


def numbers(*shape, dtype=np.float32):
    return RNG.integers(-9, 9, shape) if dtype is np.int64 else RNG.normal(size=shape).astype(dtype)


def on_gpu(*arrays):
    return [cuda.array(x, x.dtype) for x in arrays]


def same(found, expected, rtol=1e-5):
    found = cuda.to_numpy(found)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * max(1, abs(expected).max(initial=0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (5, 7, 3), (17, 18, 9), (3, 4, 0), (0, 3, 2)])
def test_matmul_has_numpy_s_values_whatever_the_shape(m, n, k, dtype):
    a, b = numbers(m, k, dtype=dtype), numbers(k, n, dtype=dtype)
    same(cuda.matmul(*on_gpu(a, b)), cpu.matmul(a, b))


@pytest.mark.parametrize(
    "a_shape, b_shape",
    [((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (3, 4, 2)), ((0, 3, 4), (4, 5))],
)
def test_leading_dimensions_broadcast(a_shape, b_shape):
    a, b = numbers(*a_shape), numbers(*b_shape)
    same(cuda.matmul(*on_gpu(a, b)), np.matmul(a, b))
    same(cuda.matmul(*on_gpu(a.astype(int), b.astype(int))), np.matmul(a.astype(int), b.astype(int)))


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_transposed_operands_are_read_where_they_lie(dtype, monkeypatch):
    a, b = numbers(2, 9, 17, dtype=dtype), numbers(2, 5, 9, dtype=dtype)
    given_a, given_b = on_gpu(a, b)
    before = emulator.launches.copy()
    found = cuda.matmul(cuda.swap_last(given_a), cuda.swap_last(given_b))
    kernel = "naive_product" if dtype is np.int64 else "tiled_product"
    assert emulator.launches - before == {kernel: 1}  # no copy
    same(found, np.matmul(a.swapaxes(1, 2), b.swapaxes(1, 2)))


def test_views_with_steps_and_from_the_end_are_operands_too():
    a, b = numbers(6, 8), numbers(4, 5)
    every_other = CudaArray((3, 4), np.float32, *_view(cuda.array(a, a.dtype), (16, 2), 0))
    turned = CudaArray((4, 5), np.float32, *_view(cuda.array(b, b.dtype), (-5, -1), 19))
    same(cuda.matmul(every_other, turned), a[::2, ::2] @ b[::-1, ::-1])


def _view(x, strides, offset):
    return x.storage, strides, offset


def test_the_result_is_written_where_it_is_asked_for():
    a, b = numbers(5, 3), numbers(3, 4)
    whole = cuda.full((4, 5), 7, np.float32)
    out = cuda.swap_last(whole)
    assert cuda.matmul(*on_gpu(a, b), out) is out
    same(whole, (a @ b).T)


@pytest.mark.parametrize("tile", [tiled.MEDIUM, tiled.LARGE])
def test_large_tiles_give_what_the_plain_kernel_gives(tile):
    m, n, k = 70, 75, 17
    a, b = on_gpu(numbers(m, k), numbers(k, n))
    plain, by_tiles = cuda.empty((m, n), np.float32), cuda.empty((m, n), np.float32)
    products.plain_product(plain, a, b)
    products.product(by_tiles, a, b, how=(tile, 1))
    same(by_tiles, cuda.to_numpy(plain))
    products.product(cuda.swap_last(by_tiles), cuda.swap_last(b), cuda.swap_last(a), how=(tile, 1))
    same(by_tiles, cuda.to_numpy(plain))


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_depth_that_is_cut_into_parts_gives_the_same(parts):
    a, b, bias = numbers(2, 5, 50), numbers(2, 50, 3), numbers(3)
    given_a, given_b, given_bias = on_gpu(a, b, bias)
    out = cuda.empty((2, 5, 3), np.float32)
    products.product(out, given_a, given_b, given_bias, how=(tiled.SMALL, parts))
    same(out, a @ b + bias)


@pytest.mark.parametrize("parts", [1, 2])
def test_an_activation_is_computed_within_the_kernel(parts):
    a, b, bias = numbers(5, 20), numbers(20, 7), numbers(7)
    given_a, given_b, given_bias = on_gpu(a, b, bias)
    out = cuda.empty((5, 7), np.float32)
    products.product(out, given_a, given_b, given_bias, "relu", (tiled.SMALL, parts))
    same(out, np.maximum(a @ b + bias, 0))


def test_nan_stays_in_its_row_and_column():
    a, b = numbers(4, 3), numbers(3, 5)
    a[1, 2], b[0, 4] = np.nan, np.inf
    found = cuda.to_numpy(cuda.matmul(*on_gpu(a, b)))
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(a @ b))


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (0, 4), (4,)])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_adds_its_bias_within_the_kernel(shape, biased):
    x, weight, bias = numbers(*shape), numbers(6, 4), numbers(6) if biased else None
    found = cuda.linear(*on_gpu(x, weight), *(on_gpu(bias) if biased else [None]))
    same(found, cpu.linear(x, weight, bias))


def test_shapes_that_do_not_match_are_an_error():
    with pytest.raises(ValueError, match=r"matmul: shapes \(2, 3\) and \(2, 3\) do not match"):
        cuda.matmul(*on_gpu(numbers(2, 3), numbers(2, 3)))


def test_large_products_take_large_tiles_and_long_thin_ones_are_cut(monkeypatch):
    monkeypatch.setattr(tiled.device, "MULTIPROCESSORS", 132)
    assert tiled.plan(1, 4096, 4096, 4096, np.float32) == (tiled.LARGE, 1)
    assert tiled.plan(1, 4096, 4096, 4096, np.float64) == (tiled.MEDIUM, 1)
    assert tiled.plan(1, 8, 8, 64, np.float32) == (tiled.SMALL, 1)
    tile, parts = tiled.plan(1, 64, 64, 1 << 20, np.float32)
    assert parts * (64 // tile.width) ** 2 > 132
