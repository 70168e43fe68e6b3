"""Running sums, the order of elements and whole quotients on the GPU are NumPy's."""

import numpy as np
import pytest

from minidl.kernels import cpu, for_device
from minidl.kernels.cuda import sorting

pytestmark = pytest.mark.usefixtures("thread_order")
cuda = for_device("cuda")


def values(shape, dtype, seed=0):
    g = np.random.default_rng(seed)
    if dtype is bool:
        return g.random(shape) < 0.5
    return (g.integers(-2, 4, shape) + (g.uniform(-0.3, 0.3, shape) if dtype is not np.int64 else 0)).astype(dtype)


def there(x):
    return cuda.array(x, x.dtype)


def check(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    rtol = 1e-5 if expected.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(cuda.to_numpy(found), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_cumsum(dtype):
    x = values((3, 5, 7), dtype)
    for dim in range(3):
        check(cuda.cumsum(there(x), dim), cpu.cumsum(x, dim))
        turned = cpu.permute(x, (1, 2, 0))
        check(cuda.cumsum(cuda.permute(there(x), (1, 2, 0)), dim), cpu.cumsum(turned, dim))
    for shape in ((2, 150), (140, 3), (40, 9), (1,), (0, 3), (3, 0)):
        x = values(shape, dtype)
        check(cuda.cumsum(there(x), 0), cpu.cumsum(x, 0))
        check(cuda.cumsum(there(x), len(shape) - 1), cpu.cumsum(x, len(shape) - 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_prod_grad_needs_no_division(dtype):
    x = values((3, 5, 4), dtype)
    x[1, 2], x[2, 1:3] = 0, 0
    for dim in range(3):
        grad = values(tuple(1 if d == dim else n for d, n in enumerate(x.shape)), dtype, 1)
        check(cuda.prod_grad(there(grad), there(x), dim), cpu.prod_grad(grad, x, dim))
        check(cuda.prod_grad(there(grad), cuda.swap_last(cuda.copy(cuda.swap_last(there(x)))), dim),
              cpu.prod_grad(grad, x, dim))  # fmt: skip
    x, grad = 1 + values((200,), dtype) / 100, values((1,), dtype)
    check(cuda.prod_grad(there(grad), there(x), 0), cpu.prod_grad(grad, x, 0))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_equal_elements_stay_in_order(dtype, descending):
    for shape in ((3, 5, 7), (1,), (2, 1), (0, 3), (3, 0), (33, 4)):
        x = np.round(values(shape, np.float32)).astype(dtype)
        for dim in range(len(shape)):
            check(cuda.argsort(there(x), dim, descending), cpu.argsort(x, dim, descending))


@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_the_largest(descending):
    x = np.array([[1, np.nan, -np.inf, 0.0, -0.0, np.nan, np.inf, np.inf, -2, 1]], np.float32)
    check(cuda.argsort(there(x), 1, descending), cpu.argsort(x, 1, descending))


@pytest.mark.parametrize("descending", [False, True])
def test_rows_longer_than_a_tile_are_merged_in_memory(descending, monkeypatch):
    monkeypatch.setattr(sorting, "THREADS", 8)
    x = np.round(values((3, 150), np.float32))
    check(cuda.argsort(there(x), 1, descending), cpu.argsort(x, 1, descending))


@pytest.mark.parametrize("name", ["floor_divide", "remainder"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_whole_quotients(name, dtype):
    a, b = values((3, 4, 5), dtype), values((4, 1), dtype, 1)
    if dtype is np.int64:
        b = np.where(b == 0, 3, b)
    check(getattr(cuda, name)(there(a), there(b)), getattr(cpu, name)(a, b))


def test_an_integer_is_not_divided_by_0():
    a, b = values((3, 4), np.int64), np.array([1, 0, 2, 3])
    for name in ("floor_divide", "remainder"):
        with pytest.raises(ZeroDivisionError, match="an integer is divided by 0"):
            getattr(cuda, name)(there(a), there(b))
        assert getattr(cuda, name)(there(a[:0]), there(b)).shape == (0, 4)
