"""hardware.py: the catalog, and files that are wrong: one sentence each."""

import re
from dataclasses import replace

import hypothesis
import pytest
from hypothesis import strategies as st
from rich.console import Console

from minidl.units import counted, scaled
from simulator import Cluster
from simulator.hardware import CATALOG, Processors, tomllib
from tests.simulator.hand_made import made_up

FILES = sorted(CATALOG.glob("*.toml"))
DGX = (CATALOG / "dgx-a100.toml").read_text()
TABLE = tomllib.loads(DGX)


def figures(table, path=()):
    """(path, figure) of every entry below the sections."""
    for key, value in table.items():
        if not isinstance(value, dict):
            continue
        if "value" in value or not any(isinstance(v, dict) for v in value.values()):
            yield (*path, key), value
        else:
            yield from figures(value, (*path, key))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_figure_of_the_catalog_has_a_value_and_a_source(path):
    table = tomllib.loads(path.read_text())
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    found = dict(figures(sections))
    assert len(found) > 10
    for place, figure in found.items():
        assert set(figure) == {"value", "source"}, place
        assert figure["value"] > 0 and len(figure["source"]) >= 7, place


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_cluster_of_the_catalog_loads_at_each_of_its_precisions(path):
    cluster = Cluster.load(path.stem)
    assert path.stem in Cluster.catalog()
    assert cluster.devices >= 1 and cluster.memory_bytes > 1e9 and cluster.processors is None
    table = tomllib.loads(path.read_text())
    for precision, peak in table["device"]["peak_flops"].items():
        assert cluster.peak_flops(precision) == peak["value"]
        assert cluster.compute.peak(precision) == peak["value"]


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


def test_the_size_of_a_cluster_without_named_nodes_is_told_by_its_own_name(tmp_path):
    (tmp_path / "mine.toml").write_text(DGX.replace('name = "DGX A100"\n', "").replace("DGX A100 cluster", "mine"))
    assert Cluster.load(tmp_path / "mine.toml", 16).size == "16 devices of mine"
    assert made_up().cluster().size.endswith(" of this machine")


def test_units_are_those_of_the_code():
    cluster = Cluster.load("dgx-a100")
    assert cluster.memory_bytes == 80e9 and cluster.peak_flops("float16") == 312e12
    assert cluster.network.node.latency == pytest.approx(6e-6)
    assert cluster.network.node.bandwidth == pytest.approx(0.76 * 300e9)
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
        "links    228 GB/s, 6 µs in a node of 8 devices; 21.2 GB/s, 10 µs between nodes",
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


def test_a_cluster_loads_from_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(DGX.replace('name = "DGX A100 cluster"', 'name = "mine"').replace("value = 80,", "value = 40,"))
    for name in (path, str(path)):
        cluster = Cluster.load(name)
        assert (cluster.name, cluster.memory_bytes) == ("mine", 40e9)


def test_ranks_share_the_processors_in_turn():
    assert [Processors(2).core_of(rank) for rank in range(5)] == [0, 1, 0, 1, 0]


def fails(name, match, **options):
    with pytest.raises(ValueError, match=match) as caught:
        Cluster.load(name, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_catalog(tmp_path):
    fails("dgx-b200", r"no cluster 'dgx-b200': neither a file nor one of dgx-a100, .*tpu-v4")
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


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("units = {", "# {", "mine.toml: device lacks 'units'"),
        ("[network]\n", "[net]\n", "the file has an unknown 'net': it may have name, devices, .*, network"),
        ('name = "DGX', '#"', "the file lacks 'name'"),
        ('name = "DGX', 'name = 3 # "', "name = 3 is not a text"),
        ("units = {", "unit = {", "device has an unknown 'unit': it may have kind, "),
        ("tfloat32", "tfloat64", "device.peak_flops has an unknown 'tfloat64': it may have float32, "),
        ("value = 80,", "valve = 80,", "device.memory_gb has an unknown 'valve': it may have value, source"),
        ("units = {", "units = 108 #", "device.units = 108 is not a table: write { value = 108 }"),
        ("devices = 8\n", "devices = 0\n", "devices = 0 is not a whole number of at least 1"),
        ('source = "NVIDIA', 'source = 2021 } # "', "memory_gb.source = 2021 is not a text"),
        ("[device]\n", "[device\n", "is not a TOML file"),
        ("devices = 8\n", f"devices = {'[' * 5000}\n", "is not a TOML file"),
        ("devices = 8\n", f"devices = {'9' * 5000}\n", "is not a TOML file"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_what_is_wrong(tmp_path, old, new, match):
    assert old in DGX
    path = tmp_path / "mine.toml"
    path.write_text(DGX.replace(old, new, 1))
    fails(path, match)


COUNTS = ("devices", "units")
SHARES = ("memory_fraction", "gemm_fraction", "attention_forward", "attention_backward", "bandwidth_fraction")
MAY_BE_ZERO = ("gemm_start_us", "latency_us")


@pytest.mark.parametrize("place", dict(figures({k: v for k, v in TABLE.items() if isinstance(v, dict)})), ids=".".join)
def test_a_figure_that_is_not_of_its_kind_is_refused_by_file_section_key_and_value(tmp_path, place):
    *sections, key = place
    wrong = {"-1": "-1", "inf": "inf", "nan": "nan", "true": "true", '"80 GB"': "'80 GB'", "1e400": "inf"}
    wrong |= {} if key in MAY_BE_ZERO else {"0": "0"}
    wrong |= {"2.5": "2.5", "8.0": "8.0"} if key in COUNTS else {}
    wrong |= {"79": "79", "1.01": "1.01"} if key in SHARES else {}
    before, after = DGX.split(f"[{'.'.join(sections)}]\n")
    path = tmp_path / "mine.toml"
    for given, shown in wrong.items():
        there = re.sub(rf"^{key} = {{ value = [^,]+,", f"{key} = {{ value = {given},", after, count=1, flags=re.M)
        path.write_text(f"{before}[{'.'.join(sections)}]\n{there}")
        needed = "whole number" if key in COUNTS else "share" if key in SHARES else "number"
        fails(path, rf"mine.toml: {'.'.join(place)}.value = {re.escape(shown)} is not a .*{needed}")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00binary")
    fails(path, "is not a TOML file")
