"""Reductions on the GPU give what NumPy's give, however rows lie in memory and are split over blocks."""

import numpy as np
import pytest

from minidl.kernels import cpu, for_device
from minidl.kernels.cuda import reduction

pytestmark = pytest.mark.usefixtures("thread_order")
cuda = for_device("cuda")
REDUCTIONS = ["sum", "prod", "max", "min", "any", "all"]
DTYPES = [np.float32, np.float64, np.int64, bool]


def values(shape, dtype, seed=0):
    g = np.random.default_rng(seed)
    if dtype is bool:
        return g.random(shape) < 0.5
    return (g.integers(-2, 4, shape) + (g.uniform(-0.3, 0.3, shape) if dtype != np.int64 else 0)).astype(dtype)


def check(name, x, *arguments, view=lambda k, a: a):
    expected = getattr(cpu, name)(view(cpu, x), *arguments)
    found = getattr(cuda, name)(view(cuda, cuda.array(x, x.dtype)), *arguments)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    tolerance = {"rtol": 2e-6, "atol": 1e-5} if x.dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(cuda.to_numpy(found), expected, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_any_dimensions_are_reduced(name, dtype):
    x = values((3, 5, 7), dtype)
    for dim in (None, 0, 1, -1, (0, 2), (0, 1), (1, 2), (), (0, 1, 2)):
        check(name, x, dim, False)
        check(name, x, dim, True)


@pytest.mark.parametrize("name", ["sum", "max"])
def test_views_are_reduced_where_they_lie(name):
    x = values((3, 5, 7, 2), np.float32)
    for view in (
        lambda k, a: k.permute(a, (2, 0, 3, 1)),
        lambda k, a: k.slice_last(k.swap_last(a), 1, 4),
        lambda k, a: k.broadcast_to(k.slice_last(a, 1, 1), (3, 5, 7, 4)),
    ):
        for dim in (None, 0, 1, 3, (0, 2), (1, 3), (0, 1, 3)):
            check(name, x, dim, False, view=view)


@pytest.mark.parametrize("shape, dim", [((1500,), None), ((2, 500), 1), ((400, 3), 0), ((20, 2, 30), (0, 2)),
                                        ((70, 2, 5), (0, 2)), ((60, 33), 0), ((33, 60), 1)])  # fmt: skip
def test_long_rows_are_split_over_blocks(shape, dim, monkeypatch):
    monkeypatch.setattr(reduction, "SERIAL", 2)
    x = values(shape, np.float32)
    check("sum", x, dim, False)
    check("max", x, dim, True)
    if not isinstance(dim, tuple):
        check("argmax", x, dim)


def test_a_long_sum_in_float32_is_precise():
    x = np.full(40_000, 0.1, np.float32)
    exact = float(np.float32(0.1)) * x.size
    assert abs(float(cuda.to_numpy(cuda.sum(cuda.array(x, x.dtype), None, False))) / exact - 1) < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_the_first_of_equals_is_found(name, dtype):
    x = np.round(values((3, 5, 7), np.float32)).astype(dtype)
    for dim in (None, 0, 1, -1):
        check(name, x, dim)
    check(name, x, 1, view=lambda k, a: k.swap_last(a))
    check(name, x, None, view=lambda k, a: k.swap_last(a))
    check(name, x[0, 0, 0], None)


@pytest.mark.parametrize("name", ["max", "min"])
def test_nan_is_the_extreme_of_any_row_that_has_one(name):
    x = values((4, 9), np.float32)
    x[1, 3] = x[1, 7] = x[2, 0] = np.nan
    x[3] = -np.inf
    check(name, x, 1, False)
    check(name, x, 0, False)
    check("arg" + name, x, 1)
    check("arg" + name, x, 0)
    check("arg" + name, -x, None)
    check("any", x, 1, False)


@pytest.mark.parametrize("name", REDUCTIONS + ["argmax"])
def test_of_nothing_there_are_sums_but_no_extremes(name):
    x = values((3, 0, 2), np.float32)
    for dim in (None, 1, 0, (0, 1)):
        if name == "argmax" and isinstance(dim, tuple):
            continue
        arguments = (dim,) if name == "argmax" else (dim, False)
        try:
            getattr(cpu, name)(x, *arguments)
        except ValueError as error:
            with pytest.raises(ValueError) as raised:
                getattr(cuda, name)(cuda.array(x, x.dtype), *arguments)
            assert str(raised.value) == str(error)
        else:
            check(name, x, *arguments)


def test_squared_norm_is_a_number():
    x = values((1000,), np.float32)
    found = cuda.squared_norm(cuda.array(x, x.dtype))
    assert type(found) is float
    assert found == pytest.approx(cpu.squared_norm(x), rel=1e-6)
    assert cuda.squared_norm(cuda.array(x[:0], x.dtype)) == 0
