"""compute/roofline.py: kernel calls priced by a datasheet, of tiles of 4 x 8 on 2 units, 100 FLOP/s."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.kernels.meta import KernelCall
from tests.simulator.hand_made import roofline
from tests.simulator.kernel_calls import elementwise, product

FAST = dict(memory_bandwidth=1e12, launch_seconds=0.0)  # leaves arithmetic alone


def seconds(call, **changes):
    return roofline(**changes).price(call)[0]


def test_a_product_of_whole_tiles_and_waves_runs_at_the_matrix_rate():
    for batch, m, n, k in ((1, 4, 16, 5), (1, 8, 16, 7), (2, 4, 8, 3), (1, 400, 80, 10)):
        assert seconds(product(batch, m, n, k), **FAST) == pytest.approx(2 * batch * m * n * k / 100)


def test_a_tile_that_sticks_out_costs_a_whole_one():
    whole = seconds(product(1, 8, 16, 5), **FAST)
    for m, n in ((5, 9), (7, 16), (8, 15)):
        assert seconds(product(1, m, n, 5), **FAST) == whole
    assert seconds(product(1, 9, 16, 5), **FAST) == pytest.approx(whole * 3 / 2)  # 3 rows of 2 tiles, 2 at a time


def test_a_wave_that_does_not_fill_the_units_costs_a_full_one():
    assert seconds(product(1, 4, 8, 5), **FAST) == seconds(product(1, 4, 16, 5), **FAST)  # 1 tile, 2 tiles
    assert seconds(product(1, 12, 8, 5), **FAST) == seconds(product(1, 16, 8, 5), **FAST)  # 3 tiles, 4 tiles
    assert seconds(product(3, 1, 1, 5), **FAST) == seconds(product(4, 4, 8, 5), **FAST)  # of a batch each has its own


def test_starting_and_ending_a_tile_costs_depth_steps_along_k():
    assert seconds(product(1, 4, 16, 5), depth=3.0, **FAST) == seconds(product(1, 4, 16, 8), **FAST)


@given(st.integers(1, 3), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_no_product_beats_the_matrix_rate(batch, m, n, k):
    assert seconds(product(batch, m, n, k), **FAST) >= 2 * batch * m * n * k / 100 * (1 - 1e-12)


def test_no_kernel_is_faster_than_its_launch_its_arithmetic_or_its_bytes():
    assert seconds(elementwise(nbytes=12, flops=1), launch_seconds=0.5) == 0.5
    assert seconds(elementwise(nbytes=12, flops=100)) == 10.0
    assert seconds(elementwise(nbytes=12000, flops=1)) == 12.0
    assert seconds(product(1, 4, 8, 1), memory_bandwidth=1.0) == 4 * (4 + 8 + 32)


def test_a_convolution_runs_at_the_matrix_rate():
    call = KernelCall("conv2d_grad_weight", "convolution", ((2, 2),), "float32", 1000, 8, 8)
    assert seconds(call) == 10.0


def test_views_cost_nothing():
    assert roofline().price(KernelCall("reshape", "view", ((4, 4), (16,)), "float32", 0, 0, 0)) == (0.0, 1.0)


def test_a_product_runs_at_the_rate_of_its_dtype():
    rates = {"float32": 100.0, "bfloat16": 400.0}
    compute = replace(roofline(**FAST), matrix_flops=rates)
    for dtype, rate in {**rates, "float64": 10.0}.items():  # one that has none is like other arithmetic
        call = product(1, 4, 16, 5, dtype)
        assert compute.price(call)[0] == pytest.approx(call.flops / rate)
