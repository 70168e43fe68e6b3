"""Vectors compute on 16 neighbours at once what NumPy computes on each."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from minidl.kernels.cpu.fast.vectors import WIDTH, fill, load, repeat, store


@njit
def combine(a, b, out):
    """out = (a + b) * 3 - a[5], 16 numbers from the second on."""
    store(out, 1, (load(a, 1) + load(b, 1)) * fill(np.float32(3)) - repeat(a, 5))


def test_vectors_load_combine_and_store_sixteen_neighbours():
    a, b = np.random.default_rng(0).standard_normal((2, 18), np.float32)
    out = np.zeros(18, np.float32)
    combine(a, b, out)
    expected = np.zeros(18, np.float32)
    expected[1 : 1 + WIDTH] = ((a + b) * 3 - a[5])[1 : 1 + WIDTH]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_vectors_count_through_arrays_of_several_dimensions():
    a = np.arange(64, dtype=np.float32).reshape(2, 2, 16)
    out = np.zeros_like(a)
    combine(a, a, out)
    np.testing.assert_array_equal(out.ravel()[1:17], 6 * np.arange(1, 17) - 5)


@pytest.mark.parametrize("array", [np.zeros(32), np.zeros((32, 32), np.float32)[:, ::2], np.zeros(32, np.int32)])
def test_vectors_refuse_arrays_that_are_not_contiguous_or_not_float32(array):
    with pytest.raises(TypingError, match="vectors need a C-contiguous array of float32"):
        combine(array, array, array)
