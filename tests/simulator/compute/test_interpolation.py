"""compute/interpolation.py: between points, and beyond them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.compute.interpolation import interpolate

POINTS = [(64, 1e-6), (4096, 2e-6), (1 << 20, 1e-4)]


def test_interpolation_is_exact_at_the_points_and_a_power_law_between_them():
    for x, y in POINTS:
        assert interpolate(POINTS, x) == pytest.approx(y)
    assert interpolate(POINTS, 512) == pytest.approx(math.sqrt(1e-6 * 2e-6))  # the geometric mean of both


def test_beyond_the_points_a_time_grows_in_proportion_and_below_them_it_stays():
    assert interpolate(POINTS, 1) == interpolate(POINTS, 64) == 1e-6
    assert interpolate(POINTS, 3 << 20) == pytest.approx(3e-4)
    assert interpolate([(64, 1.1), (4096, 1.2)], 1 << 30, growing=False) == 1.2  # a factor does not grow with size
    assert interpolate([(64, 5.0)], 1) == interpolate([(64, 5.0)], 1e9) == 5.0


@given(
    st.lists(st.tuples(st.integers(1, 10**8), st.floats(1e-7, 10)), min_size=1, max_size=6, unique_by=lambda p: p[0]),
    st.floats(1, 1e9),
    st.floats(1, 100),
)
def test_interpolation_rises_where_the_points_do(points, x, more):
    points = list(zip(sorted(p[0] for p in points), sorted(p[1] for p in points), strict=True))
    assert interpolate(points, x) <= interpolate(points, x * more) * (1 + 1e-9)
