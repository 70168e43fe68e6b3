"""Pooling on the GPU, in the emulator, against the CPU's."""

import numpy as np
import pytest

from minidl.kernels import cpu, for_device
from minidl.kernels.pooling_windows import adaptive, regular

pytestmark = pytest.mark.usefixtures("thread_order")
cuda = for_device("cuda")
RNG = np.random.default_rng(0)

CASES = {  # x, windows of its rows and its columns
    "side by side": ((2, 3, 4, 6), regular(4, 2, 2, 0), regular(6, 2, 2, 0)),
    "overlapping and padded": ((1, 2, 5, 6), regular(5, 3, 2, 1), regular(6, 3, 1, 1)),
    "apart": ((1, 3, 7, 8), regular(7, 2, 3, 0), regular(8, 1, 3, 0)),
    "over the end": ((2, 2, 4, 7), regular(4, 3, 2, 1, 1, True), regular(7, 3, 2, 1, 1, True, False)),
    "dilated": ((2, 1, 4, 5), regular(4, 2, 1, 0, 1), regular(5, 3, 1, 2, 3, True)),
    "as many as asked for": ((2, 2, 5, 4), adaptive(5, 3), adaptive(4, 5)),
    "sequences": ((2, 3, 1, 140), regular(1, 1, 1, 0), regular(140, 2, 1, 1)),
    "one large window": ((1, 1, 17, 18), regular(17, 17, 1, 0), regular(18, 18, 1, 0)),
    "no images": ((0, 2, 4, 4), regular(4, 2, 2, 0), regular(4, 2, 2, 0)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def on_gpu(x):
    return cuda.array(x, x.dtype)


def same(found, expected):
    found = cuda.to_numpy(found)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_pooling_and_what_goes_with_it_are_the_cpu_s(case, dtype):
    shape, *windows = case
    x = RNG.integers(-9, 9, shape).astype(dtype)  # some are equal
    y, which = cpu.max_pool2d(x, *windows)
    found_y, found_which = cuda.max_pool2d(on_gpu(x), *windows)
    same(found_y, y)
    same(found_which, which)
    grad = RNG.normal(size=y.shape).astype(dtype)
    same(cuda.max_pool2d_grad(on_gpu(grad), found_which, *windows), cpu.max_pool2d_grad(grad, which, *windows))
    same(cuda.max_pool2d_take(on_gpu(x), found_which, *windows), cpu.max_pool2d_take(x, which, *windows))


def test_average_pooling_and_its_gradient_are_the_cpu_s(case):
    shape, *windows = case
    x = RNG.normal(size=shape).astype(np.float32)
    y = cpu.avg_pool2d(x, *windows)
    same(cuda.avg_pool2d(on_gpu(x), *windows), y)
    grad = RNG.normal(size=y.shape).astype(np.float32)
    same(cuda.avg_pool2d_grad(on_gpu(grad), *windows), cpu.avg_pool2d_grad(grad, *windows))


def test_nan_is_the_largest_and_windows_of_infinities_are_pooled_too():
    x = RNG.normal(size=(1, 1, 4, 6)).astype(np.float32)
    x[0, 0, 0, 0] = x[0, 0, 1, 1] = np.nan
    x[0, 0, :2, 2:4], x[0, 0, 2, 2] = -np.inf, np.inf
    windows = regular(4, 2, 2, 0), regular(6, 2, 2, 0)
    y, which = cpu.max_pool2d(x, *windows)
    found_y, found_which = cuda.max_pool2d(on_gpu(x), *windows)
    same(found_y, y)
    same(found_which, which)


def test_images_may_lie_in_any_order_of_memory():
    x = RNG.normal(size=(2, 4, 6, 3)).astype(np.float32)  # channels last
    windows = regular(4, 2, 2, 0), regular(6, 3, 2, 1)
    turned = cuda.permute(on_gpu(x), (0, 3, 1, 2))
    x = x.transpose(0, 3, 1, 2)
    y, which = cpu.max_pool2d(x, *windows)
    same(cuda.max_pool2d(turned, *windows)[0], y)
    same(cuda.avg_pool2d(turned, *windows), cpu.avg_pool2d(x, *windows))
    same(cuda.max_pool2d_take(turned, on_gpu(which), *windows), y)
