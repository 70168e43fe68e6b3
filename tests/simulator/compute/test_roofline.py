"""compute/roofline.py: kernel calls priced by a device's figures: 100 FLOP/s of products, 10 of all else."""

from dataclasses import replace

import numpy as np
import pytest

from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from simulator.compute.products import Products
from tests.simulator.hand_made import roofline
from tests.simulator.kernel_calls import calls, elementwise, options, product

FAST = dict(memory_bandwidth=1e12, launch_seconds=0.0)  # leaves arithmetic alone
PLAIN = Products(units=1, tiles=((1, 1),), memory_bandwidth=1e12)  # no tile sticks out, no wave is left unfilled


def seconds(call, **changes):
    return roofline(**changes).price(call)[0]


def test_a_kernel_takes_a_start_and_the_longer_of_its_arithmetic_and_its_bytes():
    assert seconds(elementwise(nbytes=12, flops=1), launch_seconds=0.5) == 0.5 + 0.1
    assert seconds(elementwise(nbytes=12, flops=100)) == pytest.approx(1e-3 + 10)
    assert seconds(elementwise(nbytes=12000, flops=1)) == pytest.approx(1e-3 + 12)
    assert seconds(product(1, 4, 8, 1), memory_bandwidth=1.0) == pytest.approx(1e-3 + 4 * (4 + 8 + 32))


def test_views_cost_nothing():
    assert roofline().price(KernelCall("reshape", "view", ((4, 4), (16,)), "float32", 0, 0, 0)) == (0.0, 1.0)


def test_a_product_runs_at_the_rate_of_its_dtype_or_of_the_next_that_is_as_wide():
    rates = {"float32": 100.0, "bfloat16": 400.0, "float8": 800.0}
    ran_at = {"float16": 400.0, "int8": 800.0, "float4": 800.0, "tfloat32": 100.0, "float64": 100.0}
    for dtype, rate in (rates | ran_at).items():
        call = product(1, 4, 16, 5, dtype)
        assert roofline(**FAST, peak_flops=rates).price(call)[0] == pytest.approx(call.flops / rate)
    assert roofline(peak_flops={"bfloat16": 400.0}).peak("float32") == 400.0
    assert roofline(peak_flops={"float16": 400.0}).peak("float32") == 10.0  # outside of the matrix units


def attention(queries, keys, is_causal, width=64, heads=3):
    q, k = (MetaArray((heads, n, width), np.float32) for n in (queries, keys))
    with meta.record() as found:
        y, log_sum_exp = meta.attention(q, k, k, 1.0, is_causal)
        meta.attention_grad(y, q, k, k, y, log_sum_exp, 1.0, is_causal)
    return found


def test_attention_in_tiles_takes_two_products_forward_and_five_backward_of_the_pairs_that_are_seen():
    for queries, keys, is_causal, seen in (
        (6, 6, False, 36), (6, 6, True, 21), (4, 6, True, 10), (6, 4, True, 10 + 2 * 4), (6, 4, False, 24),
    ):  # fmt: skip
        forward, backward = attention(queries, keys, is_causal)
        one = 2 * 3 * seen * 64  # FLOPs of one product
        device = dict(FAST, attention_forward=0.5, attention_backward=0.25)
        assert seconds(forward, **device) == pytest.approx(2 * one / (100 * 0.5))
        assert seconds(backward, **device) == pytest.approx(5 * one / (100 * 0.25))


def test_heads_of_other_widths_are_filled_up():
    for call, wider in zip(attention(8, 8, True, width=80), attention(8, 8, True, width=96), strict=True):
        assert seconds(call, **FAST) == seconds(wider, **FAST)


def test_a_convolution_is_a_product_of_its_windows_and_its_weights_gradient_sums_over_them():
    forward, backward, of_weight = calls((5, 3, 8, 8), (4, 3, 2, 3))
    device = roofline(vector_flops=1e-9, products=PLAIN, convolution_fraction=0.5, **FAST)
    for call, (m, n, k) in ((forward, (210, 4, 18)), (backward, (320, 3, 24)), (of_weight, (4, 18, 210))):
        assert device.price(call)[0] == pytest.approx(2 * m * n * k / 100 / 0.5)


def test_convolutions_reach_another_share_in_some_dtypes():
    shares = dict(convolution_fraction=0.5, convolution_fractions={"tfloat32": 0.25})
    device = roofline(products=PLAIN, **shares, **FAST)
    call, *_ = calls((5, 3, 8, 8), (4, 3, 2, 3))
    assert device.price(replace(call, dtype="tfloat32"))[0] == pytest.approx(2 * device.price(call)[0])


def test_small_windows_of_float32_take_fewer_products_where_winograds_algorithm_is():
    few = roofline(products=PLAIN, vector_flops=1e-9, winograd=True, **FAST)
    many = roofline(products=PLAIN, vector_flops=1e-9, **FAST)
    for size, stride, groups, dtype, saves in (
        (3, 1, 1, "float32", True), (5, 1, 1, "float32", True), (1, 1, 1, "float32", False),
        (3, 2, 1, "float32", False), (3, 1, 2, "float32", False), (3, 1, 1, "float64", False),
    ):  # fmt: skip
        for call in calls((2, 4, 8, 8), (4, 4 // groups, size, size), dtype, options(stride, 1, groups)):
            assert few.price(call)[0] == pytest.approx(many.price(call)[0] / (2.25 if saves else 1)), call


def test_a_depthwise_convolution_runs_outside_of_the_matrix_units_where_these_would_take_longer():
    call, *_ = calls((2, 32, 8, 8), (32, 1, 3, 3), chosen=options(1, 1, groups=32))
    assert seconds(call, vector_flops=50.0, **FAST) == call.flops / 50 < seconds(call, vector_flops=1.0, **FAST)
