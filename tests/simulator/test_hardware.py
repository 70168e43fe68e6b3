"""hardware.py: clusters, their sizes in words, and what they show."""

from dataclasses import replace

import hypothesis
import pytest
from hypothesis import strategies as st
from rich.console import Console

from minidl.units import counted, scaled
from simulator import Cluster
from simulator.hardware import Processors
from tests.simulator.hand_made import made_up


def test_a_cluster_has_as_many_devices_as_one_asks_for():
    assert Cluster.load("dgx-a100").devices == 8
    assert Cluster.load("dgx-a100", devices=1024).devices == 1024


@pytest.mark.parametrize(
    ("name", "devices", "size"),
    [
        ("dgx-a100", 1024, "1,024 devices (128 DGX A100)"),
        ("dgx-a100", 8, "8 devices (1 DGX A100)"),
        ("dgx-a100", 12, "12 devices (2 DGX A100)"),
        ("dgx-a100", 1, "1 device of one DGX A100"),
        ("tpu-v4", 64, "64 devices of one TPU v4 pod"),
    ],
)
def test_the_size_of_a_cluster_is_told_in_devices_and_nodes(name, devices, size):
    assert Cluster.load(name, devices).size == size


def test_the_size_of_a_cluster_without_named_nodes_is_told_by_its_own_name():
    assert replace(Cluster.load("dgx-a100", 16), node=None, name="mine").size == "16 devices of mine"
    assert made_up().cluster().size.endswith(" of this machine")


def test_units_are_those_of_the_code():
    cluster = Cluster.load("dgx-a100")
    assert cluster.memory_bytes == 80e9 and cluster.peak_flops("bfloat16") == 312e12
    link = cluster.network.levels[0].link
    assert (link.latency, link.start) == pytest.approx((1.625e-6, 7.6e-6))
    assert link.bandwidth == pytest.approx(0.793 * 300e9) and link.ramp * 2**10 == pytest.approx(5.7e-6)
    assert cluster.compute.products.start_seconds == pytest.approx(2e-6)


def test_a_cluster_shows_devices_memory_peak_kernels_and_links():
    cluster = Cluster.load("dgx-a100", devices=1024)
    assert repr(cluster) == "<Cluster of 1,024 devices, 80 GB and 312 TFLOP/s each: DGX A100 cluster>"
    assert str(cluster).splitlines() == [
        "DGX A100 cluster",
        "devices  1,024",
        "memory   80 GB a device, 81.9 TB in all",
        "peak     312 TFLOP/s a device, 319 PFLOP/s in all",
        "kernels  products 243 TFLOP/s (bfloat16), others 19.5 TFLOP/s, memory 1.73 TB/s",
        "links    238 GB/s in a DGX A100; 21.2 GB/s a device by InfiniBand",
    ]


def test_this_machine_shows_its_cores_and_what_was_timed():
    cluster = made_up().cluster()
    cores, nbytes, seconds = cluster.processors.cores, *cluster.network.send[-1]
    text = " ".join(str(cluster).split())
    assert f"this machine devices {cores}: ranks share {counted(cores, 'core')} memory 1 GB a device" in text
    assert "peak 100 GFLOP/s a device" in text
    assert "kernels as timed: products of matrices 4 to 16 a side, and 1 kernel beside" in text
    assert f"links shared memory, {scaled(nbytes / seconds, 'B/s')} for a message of {scaled(nbytes, 'B')}" in text


@hypothesis.given(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"))), st.integers(1, 10**9), st.floats(1, 1e20)
)
def test_no_line_of_a_cluster_is_longer_than_80_columns(name, devices, amount):
    cluster = replace(Cluster.load("tpu-v4", devices), name=name, memory_bytes=amount, peaks={"bfloat16": amount})
    measure = Console(width=1000).measure
    assert all(measure(line).maximum <= 80 for line in str(cluster).splitlines())
    assert f"{scaled(amount, 'B')} and {scaled(amount, 'FLOP/s')} each: {name}>" in repr(cluster)


def test_ranks_share_the_processors_in_turn():
    assert [Processors(2).core_of(rank) for rank in range(5)] == [0, 1, 0, 1, 0]


def fails(name, match, **options):
    with pytest.raises(ValueError, match=match) as caught:
        Cluster.load(name, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_catalog(tmp_path):
    fails("dgx-z", r"no cluster 'dgx-z': neither a file nor one of aws-.*dgx-a100, .*tpu-v4")
    fails(tmp_path, "neither a file nor one of")  # a folder


@pytest.mark.parametrize("devices", [0, -8, 1.5, "8", True])
def test_a_number_of_devices_that_is_none_is_refused(devices):
    fails("dgx-a100", r"devices=.* is not a whole number of at least 1", devices=devices)


def test_a_precision_that_the_device_does_not_have_is_refused():
    for name, precision, match in (
        ("tpu-v4", "float32", "TPU v4 slice has no precision 'float32': it has bfloat16"),
        ("dgx-a100", "int3", "it has bfloat16, float16, tfloat32, float32"),
    ):
        with pytest.raises(ValueError, match=match):
            Cluster.load(name).peak_flops(precision)
