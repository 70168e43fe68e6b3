"""compute/measured.py: kernel calls priced by what was timed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from simulator.compute import Measured
from simulator.compute.timed import as_computed, timed_by
from tests.simulator.kernel_calls import calls, elementwise, product

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
