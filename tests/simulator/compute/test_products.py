"""compute/products.py: products in tiles of 4 x 8 on 2 units at 100 FLOP/s, and those that an A100 was timed on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Cluster
from simulator.compute.products import Products


def seconds(batch, m, n, k, layout="NN", added=0.0, dtype="float32", **figures):
    default = dict(units=2, tiles=((4, 8),), memory_bandwidth=1000.0)
    return Products(**default | figures).seconds(batch, m, n, k, layout, added, dtype, 100.0)


def test_a_product_of_whole_tiles_and_waves_runs_at_its_fraction_of_the_peak():
    for batch, m, n, k in ((1, 4, 16, 5), (1, 8, 16, 7), (2, 4, 8, 3), (1, 400, 80, 10)):
        assert seconds(batch, m, n, k, fraction=0.5) == pytest.approx(2 * batch * m * n * k / 50)
    assert seconds(1, 4, 16, 5, fractions={"float32": 0.25}) == pytest.approx(2 * 4 * 16 * 5 / 25)


def test_a_tile_that_sticks_out_costs_a_whole_one():
    whole = seconds(1, 8, 16, 5)
    assert seconds(1, 5, 9, 5) == seconds(1, 7, 16, 5) == seconds(1, 8, 15, 5) == whole
    assert seconds(1, 9, 16, 5) == pytest.approx(whole * 3 / 2)  # 3 rows of 2 tiles, 2 at a time


def test_a_last_wave_that_does_not_fill_the_units_costs_a_power_of_its_share():
    whole = seconds(1, 4, 16, 5)
    for exponent in (0.0, 0.26, 1.0):
        assert seconds(1, 4, 8, 5, last_wave=exponent) == pytest.approx(whole * 0.5**exponent)  # 1 tile of 2
        assert seconds(3, 1, 1, 5, last_wave=exponent) == pytest.approx(whole * (1 + 0.5**exponent))


def test_starting_and_ending_a_tile_costs_depth_steps_along_k_and_k_is_filled_up():
    assert seconds(1, 4, 16, 5, depth=3.0) == seconds(1, 4, 16, 8)
    assert seconds(1, 4, 16, 5, inner=4) == seconds(1, 4, 16, 8)


def test_starting_a_tile_takes_fewer_steps_outside_of_matrix_units():
    assert seconds(1, 4, 16, 5, depth=150.0, vector_flops=50.0) == seconds(
        1, 4, 16, 5 + 16
    )  # of 100 FLOP/s in products
    assert seconds(1, 4, 16, 5, depth=150.0, vector_flops=30.0) == seconds(1, 4, 16, 5 + 150)
    assert seconds(1, 4, 16, 5, depth=3.0, vector_flops=50.0) == seconds(1, 4, 16, 8)


def test_the_tile_that_wastes_least_is_taken_and_smaller_ones_are_fed_more_slowly():
    tiles = ((4, 8), (8, 4), (2, 2))
    assert seconds(1, 8, 4, 5, units=1, tiles=tiles) == seconds(1, 4, 8, 5, units=1)
    small = seconds(1, 2, 2, 5, units=1, tiles=tiles)
    assert small == pytest.approx(2 * 2 * 2 * 5 / 100)
    # reuse of 2 x 2 is 1, needed are 4 bytes * 100 FLOP/s / (2 * 100 bytes/s) = 2; 4 x 8 has 2.67
    fed = seconds(1, 2, 2, 5, units=1, tiles=tiles, feed_bandwidth=100.0)
    assert fed == pytest.approx(2 * small)
    assert seconds(1, 4, 8, 5, units=1, tiles=tiles, feed_bandwidth=100.0) == seconds(1, 4, 8, 5, units=1)


def test_k_is_split_among_units_that_would_be_idle_and_the_parts_are_added_up_by_a_second_kernel():
    whole = seconds(1, 4, 8, 1024, start_seconds=7.0, memory_bandwidth=64.0)  # 1 tile on 2 units
    assert whole == pytest.approx(7 + 2 * 2 * 32 * 512 / 100 + 7 + 2 * 8 * 32 / 64)
    assert seconds(1, 4, 8, 1024, start_seconds=1e4, memory_bandwidth=64.0) == pytest.approx(
        1e4 + 2 * 2 * 32 * 1024 / 100
    )


def test_adding_to_what_is_there_shows_a_share_of_its_traffic():
    assert seconds(1, 4, 16, 5, added=500.0, accumulate=0.4) == pytest.approx(seconds(1, 4, 16, 5) + 0.4 * 0.5)


def test_power_caps_what_takes_longer_than_a_burst():
    free = seconds(1, 400, 80, 10)
    assert seconds(1, 400, 80, 10, sustained=0.5, burst_seconds=100.0) == pytest.approx(2 * free - 100)
    assert seconds(1, 4, 16, 5, sustained=0.5, burst_seconds=100.0) == seconds(1, 4, 16, 5)


@pytest.mark.parametrize(
    ("layout", "m", "n", "k", "is_slow"),
    [
        ("NN", 401, 80, 16, False),  # rows of A are k long, those of B and C n
        ("NN", 400, 81, 16, True), ("NN", 400, 80, 17, True), ("NT", 401, 80, 16, False), ("NT", 400, 80, 17, True),
        ("NT", 400, 81, 16, True), ("TN", 401, 80, 16, True), ("TN", 400, 80, 17, False),
    ],
)  # fmt: skip
def test_rows_that_are_no_multiple_of_16_bytes_make_a_product_slow(layout, m, n, k, is_slow):
    figures = dict(units=1, tiles=((1, 1),), alignment=16, unaligned=0.25, unaligned_batched=0.05)
    for batch, share in ((1, 0.25), (2, 0.05)):
        found = seconds(batch, m, n, k, layout, dtype="bfloat16", **figures)
        assert found == pytest.approx(2 * batch * m * n * k / (100 * (share if is_slow else 1)))


@given(st.integers(1, 3), st.integers(1, 60), st.integers(1, 60), st.integers(1, 600))
def test_no_product_beats_the_peak_and_none_is_faster_than_a_smaller_one(batch, m, n, k):
    figures = dict(tiles=((4, 8), (8, 4), (4, 4), (2, 2)), last_wave=0.3, feed_bandwidth=150.0, start_seconds=0.1)
    found = seconds(batch, m, n, k, **figures)
    assert found >= 2 * batch * m * n * k / 100 * (1 - 1e-12)
    assert found <= seconds(batch, m, n, 2 * k, **figures) * (1 + 1e-12)


# m, n, k, layout, milliseconds on an A100 80GB PCIe: every 15th, by time, of the bfloat16 products in the SimuMax
# repository, a100_pcie. TN is the gradient of a weight, added up in float32.
MEASURED = [
    (4096, 4096, 512, "NT", 0.09025), (4096, 1024, 4096, "NN", 0.2407), (4096, 8192, 1280, "NN", 0.3806),
    (4096, 3072, 5120, "NN", 0.594), (4096, 32768, 512, "NT", 0.7133), (4096, 3584, 8192, "NN", 1.15),
    (4096, 4096, 14336, "NN", 2.035), (5120, 12288, 4096, "TN", 2.293), (4096, 16384, 7168, "NN", 4.032),
    (8192, 14336, 4096, "TN", 4.376), (4096, 8192, 28672, "NN", 8.263), (4096, 8192, 57344, "NN", 16.34),
    (4096, 8192, 128256, "NN", 37.04),
]  # fmt: skip


def test_products_of_an_a100_are_within_4_percent_of_what_was_measured_in_the_mean():
    compute, errors = Cluster.load("dgx-a100").compute, []
    peak = compute.peak("bfloat16")
    for m, n, k, layout, ms in MEASURED:
        found = compute.products.seconds(1, m, n, k, layout, 8 * m * n * (layout == "TN"), "bfloat16", peak)
        errors.append(abs(1e3 * found / ms - 1))
    assert sum(errors) / len(errors) < 0.04
