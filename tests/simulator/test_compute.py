"""compute.py: kernel calls priced from a datasheet and from measurements."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from simulator.compute import (
    RUN_BYTES,
    Convolution,
    Measured,
    as_computed,
    convolution,
    interpolate,
    timed_as,
    timed_by,
)
from tests.simulator.hand_made import roofline


def product(batch, m, n, k, dtype="float32"):
    moved = 4 * batch * (m * k + k * n)
    return KernelCall("matmul", "product", ((batch, m, n, k),), dtype, 2 * batch * m * n * k, moved, 4 * batch * m * n)


def elementwise(name="add", nbytes=1200, flops=100, dtype="float32", kind="elementwise"):
    return KernelCall(name, kind, ((nbytes // 12,),), dtype, flops, nbytes * 2 // 3, nbytes // 3)


FAST = dict(memory_bandwidth=1e12, launch_seconds=0.0)  # leaves arithmetic alone


def seconds(call, **changes):
    return roofline(**changes).price(call)[0]


# Roofline: tiles of 4 x 8 on 2 units, 100 FLOP/s


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


def test_half_precision_halves_the_bytes_of_all_but_the_optimizer():
    others = (elementwise(nbytes=12000, flops=0, kind=kind) for kind in ("elementwise", "copy", "normalisation"))
    update = elementwise(nbytes=12000, flops=0, kind="update")
    for call, factor in ((product(1, 1, 1, 1), 0.5), *((call, 0.5) for call in others), (update, 1.0)):
        whole = seconds(call, memory_bandwidth=1.0)
        for precision in ("bfloat16", "float16"):
            assert seconds(call, memory_bandwidth=1.0, precision=precision) == whole * factor
        assert seconds(call, memory_bandwidth=1.0, precision="tfloat32") == whole


def test_what_is_not_of_floats_keeps_its_bytes():
    for dtype in ("int64", "bool", "float64"):
        call = elementwise("index", 12000, 0, dtype)
        assert seconds(call, precision="bfloat16") == seconds(call)


# Interpolation


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


# Measured

SIZES = (4, 16, 64)


def measured(**changes):
    """1 ns a FLOP / 2 and a microsecond a product."""
    gemm = tuple(1e-6 + m * n * k * 1e-9 for m in SIZES for n in SIZES for k in SIZES)
    figures = dict(
        gemm_sizes=SIZES, gemm_seconds=gemm, kernels={"add": [(120, 1e-6), (120_000, 1e-4)], "relu": [(120, 3e-6)]},
        contention=[(1000, 1.0), (1_000_000, 1.5)], matmul_contention=1.2, python=[(1, 0.0)],
        instruction_seconds=0.0,
    )  # fmt: skip
    return Measured(**figures | changes)


def test_measured_products_are_exact_at_the_sizes_that_were_measured():
    for m in SIZES:
        for n in SIZES:
            for k in SIZES:
                found, contention = measured().price(product(1, m, n, k))
                assert found == pytest.approx(1e-6 + m * n * k * 1e-9) and contention == 1.2


def test_a_batch_of_products_takes_as_long_as_its_members_one_by_one():
    one, six = (measured().price(product(batch, 16, 30, 5))[0] for batch in (1, 6))
    assert six == pytest.approx(6 * one)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 200), st.integers(1, 100), st.sampled_from([0, 1, 2]))
def test_a_larger_product_never_takes_less_time_where_the_measured_ones_did_not(m, n, k, more, which):
    small = [m, n, k]
    large = list(small)
    large[which] += more
    compute = measured()
    assert compute.price(product(1, *small))[0] <= compute.price(product(1, *large))[0] * (1 + 1e-9)


def test_an_empty_product_costs_a_call_alone():
    assert measured(python=[(1, 1e-7)]).price(product(1, 0, 4, 4))[0] == 1e-7


def test_a_kernel_is_priced_by_the_bytes_it_moves_and_an_unknown_one_as_an_addition():
    compute = measured()
    assert compute.price(elementwise("add", 120))[0] == pytest.approx(1e-6)
    assert compute.price(elementwise("relu", 120))[0] == pytest.approx(3e-6)
    assert compute.price(elementwise("of tomorrow", 120_000))[0] == pytest.approx(1e-4)
    assert compute.price(elementwise("add", 1_000_000 // 12 * 12))[1] == pytest.approx(1.5, rel=1e-3)


def test_a_view_costs_python_alone():
    view = KernelCall("reshape", "view", ((4, 4), (16,)), "float32", 0, 0, 0)
    assert measured(python=[(1, 1e-7)]).price(view) == (1e-7, 1.0)


def test_python_takes_longer_after_a_kernel_that_has_moved_much():
    compute = measured(kernels={"add": [(1, 0.0)]}, python=[(100, 1e-6), (10_000, 4e-6)])
    times = [compute.price(elementwise("add", 12 * n))[0] for n in (1, 8, 100, 1000, 10**6)]
    assert times[0] == times[1] == 1e-6 and times[3] == times[4] == 4e-6
    assert 1e-6 < times[2] < 4e-6


def options(stride=1, padding=0, groups=1, dilation=1):
    """As a convolution's call has them."""
    return (stride, stride), (padding, padding), (dilation, dilation), groups


def calls(x, weight, dtype="float32", chosen=None, bias=False):
    """The three calls of a convolution of images `x` and its gradients: forward, of the input, of the weight."""
    chosen = chosen or options()
    x, weight = MetaArray(x, dtype), MetaArray(weight, dtype)
    with meta.record() as found:
        y = meta.conv2d(x, weight, MetaArray(weight.shape[:1], dtype) if bias else None, *chosen)
        meta.conv2d_grad_input(y, weight, x.shape, *chosen)
        meta.conv2d_grad_weight(y, x, weight.shape, *chosen)
    return found


def test_the_three_products_of_a_convolution_are_over_its_windows():
    """Images (5, 3, 8, 8), kernel 2 x 3, 4 channels out: windows of the input have runs of 3 * 3 numbers."""
    places = 5 * 7 * 6
    windows = Convolution((1, places, 4, 2 * 9), places * 2 * (4 * 9 + RUN_BYTES))
    forward, backward, of_weight = map(convolution, calls((5, 3, 8, 8), (4, 3, 2, 3), bias=True))
    assert forward == of_weight == windows
    assert backward == Convolution((1, 5 * 64, 3, 2 * 12), 5 * 64 * 2 * (4 * 12 + RUN_BYTES))
    assert convolution(elementwise("relu")) is None


def test_a_convolution_in_groups_is_a_product_for_each_of_them():
    """Images (5, 6, 8, 8) in 3 groups of 2 channels, kernel 2 x 3, 12 channels out: runs of 2 numbers, 4 backward."""
    places, runs = 5 * 7 * 6, 2 * 3 * 3
    windows = Convolution((3, places, 4, 2 * 3 * 2), places * runs * (4 * 2 + RUN_BYTES))
    forward, backward, of_weight = map(convolution, calls((5, 6, 8, 8), (12, 2, 2, 3), chosen=options(groups=3)))
    assert forward == of_weight == windows
    assert backward == Convolution((3, 5 * 64, 2, 2 * 3 * 4), 5 * 64 * runs * (4 * 4 + RUN_BYTES))


def test_large_convolutions_of_3_by_3_are_36_products_over_tiles():
    for call in calls((8, 32, 30, 32), (64, 32, 3, 3), chosen=options(padding=1)):
        found = convolution(call)
        assert call.algorithm == "winograd" and found.rest == 4 * 36 * 8 * 64 * (32 + 64)
        batch, m, n, k = found.product
        assert (batch, m, {n, k}) == (36, 8 * 8 * 8, {32, 64})


def test_other_large_convolutions_are_priced_by_their_flops():
    found = calls((8, 16, 30, 32), (32, 16, 5, 5), chosen=options(padding=2))
    assert [convolution(call) for call in found] == [Convolution((0, 0, 0, 0), call.flops) for call in found]


def test_the_zeros_between_the_elements_of_a_strided_gradient_are_flops_too():
    forward, backward, _ = calls((80, 32, 9, 9), (32, 1, 3, 3), chosen=options(3, 1, groups=32))
    assert convolution(forward).rest == forward.flops and convolution(backward).rest == 9 * backward.flops


def test_the_products_of_a_strided_convolution_are_over_the_places_of_its_gradient():
    forward, backward, _ = map(convolution, calls((5, 3, 9, 9), (4, 3, 2, 3), chosen=options(3)))
    assert forward.product == (1, 5 * 9, 4, 2 * 3 * 3) and backward.product == (1, 5 * 9, 3, 2 * 3 * 4)


def test_the_times_of_a_convolution_are_kept_by_its_algorithm():
    strided = calls((8, 32, 30, 32), (32, 32, 3, 3), chosen=options(2, 1))
    assert [timed_as(call) for call in strided] == [
        "conv2d, direct", "conv2d_grad_input, windows", "conv2d_grad_weight, direct"
    ]  # fmt: skip
    assert timed_as(elementwise("relu")) == "relu"


@pytest.mark.parametrize("algorithm", ["winograd", "direct", "windows"])
def test_a_gpu_computes_every_convolution_by_windows(algorithm):
    costs = {"windows": 0.5, "winograd": 9.0, "direct": 9.0}
    for noted in calls((16, 32, 16, 16), (32, 32, 3, 3)):
        call = replace(noted, algorithm=algorithm)
        windows = as_computed(call, "cuda")
        assert as_computed(call, "cpu") is call and windows == replace(call, algorithm="windows")
        kernels = {f"{call.name}, {way}": [(1, cost)] for way, cost in costs.items()} | {"add": [(1, 9.0)]}
        on_gpu, on_cpu = measured(device="cuda", kernels=kernels), measured(kernels=kernels)
        assert on_gpu.price(call) == on_cpu.price(windows)
        assert (on_gpu.price(call) == on_cpu.price(call)) == (algorithm == "windows")
    addition = elementwise()
    assert as_computed(addition, "cuda") is addition


def test_attention_in_tiles_is_priced_by_its_flops_where_it_was_timed_and_else_as_a_product():
    q, k, v = (MetaArray((2, 4, 8, 16), "float32") for _ in range(3))
    with meta.record() as found:
        meta.attention(q, k, v, 1.0, False)
    (call,) = found
    timed = measured(kernels={"add": [(1, 9.0)], "attention": [(call.flops, 7.0)]}, device="cuda")
    assert timed_by(call) == call.flops and timed.price(call) == (7.0, 1.2)
    assert measured(device="cuda").price(call)[0] == measured().matmul_seconds(*call.shapes[0])
    assert timed_by(product(1, 2, 3, 4)) is None and timed_by(elementwise(nbytes=120)) == 120


def test_a_kernel_that_was_timed_on_small_arrays_alone_grows_as_an_addition():
    compute = measured(kernels={"add": [(120, 1e-6), (120_000, 1e-4)], "accumulate": [(24, 12e-6)]})
    large, small = (compute.price(elementwise("accumulate", n))[0] for n in (120_000 // 12 * 12, 24))
    added = compute.price(elementwise("add", 120_000 // 12 * 12))[0] - compute.price(elementwise("add", 24))[0]
    assert large - small == pytest.approx(added)
