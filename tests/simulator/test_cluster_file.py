"""cluster_file.py: the catalog, whole and with sources; files that are wrong: one sentence each."""

import re

import pytest

from simulator import Cluster
from simulator.cluster_file import CATALOG, described, names, tomllib
from tests.simulator.test_catalog_page import block

MINE = block("toml")
WITHOUT_DEVICE = {"horovod-pascal-25g"}  # whose authors do not name it
LOADABLE = sorted({*names()} - WITHOUT_DEVICE)


def figures(table, path=()):
    """(path, figure) of every figure of a table and those in it."""
    for key, value in table.items():
        if isinstance(value, dict) and "value" in value:
            yield (*path, key), value
        elif isinstance(value, dict):
            yield from figures(value, (*path, key))


@pytest.mark.parametrize("name", LOADABLE)
def test_a_system_of_the_catalog_loads_at_each_of_its_precisions_and_every_figure_has_a_source(name):
    cluster, table = Cluster.load(name), described(name)
    found = dict(figures(table))
    assert len(found) > 12
    for place, figure in found.items():
        assert set(figure) == {"value", "source"} and len(figure["source"]) >= 5, place
    assert cluster.devices >= 1 and cluster.memory_bytes > 1e9 and cluster.processors is None
    for precision, peak in table["device"]["peak_flops"].items():
        assert cluster.peak_flops(precision) == peak["value"]
        assert cluster.compute.peak(precision) == peak["value"]


def test_every_part_of_the_catalog_is_used():
    texts = "".join(path.read_text() for path in CATALOG.glob("*.toml"))
    assert all(f'"{part}"' in texts for folder in ("devices", "links") for part in names(folder))


def test_a_system_whose_device_nobody_knows_is_refused_until_a_file_names_one(tmp_path):
    fails("horovod-pascal-25g", "horovod-pascal-25g.toml: the file lacks 'device'")
    path = tmp_path / "mine.toml"
    path.write_text('like = "horovod-pascal-25g"\ndevice = "p100-pcie-16gb"\n')
    cluster = Cluster.load(path, devices=512)
    assert (cluster.device, cluster.size) == ("p100-pcie-16gb", "512 devices (128 4-GPU server)")


def test_dgx_a100_is_another_name_of_dgx_a100_80g():
    assert Cluster.load("dgx-a100", 64) == Cluster.load("dgx-a100-80g", 64)
    assert Cluster.load("dgx-a100").device == "a100-sxm4-80gb"


def test_a_file_of_ones_own_may_name_parts_of_the_catalog_and_replace_what_another_says(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    assert (Cluster.load(path).devices, Cluster.load(str(path)).device) == (8, "cluster of twin-GPU boxes")
    path.write_text('like = "dgx-h100-80g"\nname = "mine"\ndevice = "h200-sxm-141gb"\n')
    mine, dgx = Cluster.load(path, 64), Cluster.load("dgx-h100-80g", 64)
    assert (mine.name, mine.memory_bytes, mine.network) == ("mine", 141e9, dgx.network)


def test_of_a_rack_fewer_devices_may_be_used():
    whole, usual = Cluster.load("gb200-nvl72", 72), Cluster.load("gb200-nvl72", 2496)
    assert (whole.node.devices, usual.node.devices, usual.size) == (72, 64, "2,496 devices (39 GB200 NVL72)")
    assert usual.network.levels[1].adapters == 64
    four = Cluster.load("dgx-a100", 64, devices_per_node=4)
    assert (four.node.devices, four.network.levels[1].adapters) == (4, 4)
    with pytest.raises(ValueError, match="devices_per_node=96: a GB200 NVL72 cluster has 72"):
        Cluster.load("gb200-nvl72", devices_per_node=96)


def test_a_single_node_has_no_more_devices_than_it_has():
    assert Cluster.load("vtrain-a100-node", 8).devices == 8
    fails("vtrain-a100-node", "vTrain A100 node has 8 devices, not 16", devices=16)


def fails(name, match, **options):
    with pytest.raises(ValueError, match=match) as caught:
        Cluster.load(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("units = {", "#", "mine.toml: device lacks 'units'"),
        ("[levels.", "[levls.", "the file has an unknown 'levls': it may have like, name, devices, device, levels"),
        ("gemm_fraction", "gemm_share", "device has an unknown 'gemm_share': it may have kind, .*memory_gb"),
        ("float16 ", "float17 ", "device.peak_flops has an unknown 'float17': it may have float32, "),
        ("value = 24,", "valve = 24,", "device.memory_gb has an unknown 'valve': it may have value, source"),
        ("memory_gb = {", "memory_gb = 24 #", "device.memory_gb = 24 is not a table: write { value = 24 }"),
        ("devices = 8\n", "devices = 0\n", "devices = 0 is not a whole number of at least 1"),
        ('source = "datasheet"', "source = 2021", "memory_gb.source = 2021 is not a text"),
        ('name = "cluster', 'name = 3 # "', "name = 3 is not a text"),
        ('name = "cluster', '# "', "the file lacks 'name'"),
        ('"switch"', '"switches"', "levels.node.topology = 'switches' is not one of switch, bus, fully-connected, "),
        ('"fat-tree"', '"torus"', "levels.network lacks 'shape'"),
        ('"roce-25"', '"roce-26"', "levels.network.link = 'roce-26' is neither a table nor one of the catalog's links"),
        ("bandwidth = { value = 32e9", "bandwidth = { value = 32", "node.link.bandwidth.value = 32 is not .* bytes/s"),
        (
            "memory_gb = { value = 24,",
            "memory_gb = { value = 24e9,",
            "device.memory_gb.value = 24000000000.0 is not .* 10⁹",
        ),
        (
            "float16 = { value = 71e12",
            "float16 = { value = 71",
            "peak_flops.float16.value = 71 is not a rate in FLOP/s",
        ),
        ("memory_bandwidth = { value = 936e9", "memory_bandwidth = { value = 936", "936 is not a bandwidth in bytes/s"),
        ("adapters = {", "cube = {", "levels.network has an unknown 'cube': it may have name, topology"),
        ("adapters = { value = 1,", "adapters = { value = 0,", "levels.network.adapters.value = 0 is not a whole"),
        ("devices = { value = 2,", "#", "levels.node lacks 'devices': only the last level joins all there are"),
        ("devices = { value = 2,", "adapters = { value = 2 }\ndevices = { value = 2,", "it has no 'adapters'"),
        (
            'topology = "switch"',
            'topology = "torus"\nshape = { value = [2, 2] }',
            r"levels.node.shape = \[2, 2\] is not one of 2 places",
        ),
        ("[device]\n", "[device\n", "is not a TOML file"),
        ("devices = 8\n", f"devices = {'[' * 5000}\n", "is not a TOML file"),
        ("devices = 8\n", f"devices = {'9' * 5000}\n", "is not a TOML file"),
        ("devices = 8\n", 'devices = 8\nlike = "dgx"\n', "like = 'dgx' is not one of the catalog: aws-"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_what_is_wrong(tmp_path, old, new, match):
    assert old in MINE
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(old, new, 1))
    fails(path, match)


COUNTS = ("devices", "units", "adapters")
SHARES = ("gemm_fraction", "bandwidth_fraction")


@pytest.mark.parametrize("place", dict(figures(tomllib.loads(MINE))), ids=".".join)
def test_a_figure_that_is_not_of_its_kind_is_refused_by_file_section_key_and_value(tmp_path, place):
    *sections, key = place
    wrong = {"-1": "-1", "inf": "inf", "nan": "nan", "true": "true", '"80 GB"': "'80 GB'", "1e400": "inf", "0": "0"}
    wrong |= {"2.5": "2.5", "8.0": "8.0"} if key in COUNTS else {}
    wrong |= {"79": "79", "1.01": "1.01"} if key in SHARES else {}
    before, after = MINE.split(f"[{'.'.join(sections)}]\n")
    path = tmp_path / "mine.toml"
    for given, shown in wrong.items():
        there = re.sub(rf"^{key} = {{ value = [^,]+,", f"{key} = {{ value = {given},", after, count=1, flags=re.M)
        path.write_text(f"{before}[{'.'.join(sections)}]\n{there}")
        fails(path, rf"mine.toml: {'.'.join(place)}.value = {re.escape(shown)} is not a .*")


def test_a_file_without_levels_or_with_units_that_do_not_fit_into_others_is_refused(tmp_path):
    path, device = tmp_path / "mine.toml", 'name = "mine"\ndevice = "tpu-v4"\n'
    path.write_text(f"{device}[levels]\n")
    fails(path, "levels has no level")
    level = '[levels.{}]\nname = "unit"\ntopology = "switch"\nlink = "nvlink4"\ndevices = {{ value = {} }}\n'
    path.write_text(device + level.format("node", 8) + level.format("pod", 12))
    fails(path, "levels.node.devices = 8 does not divide the 12 of the level above it")


def test_a_ring_of_nodes_is_closed_where_all_of_them_are_used(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'like = "dgx-a100-80g"\n[levels.network]\nname = "ring"\ntopology = "ring"\nlink = "roce-200"\n'
        "adapters = { value = 2 }\ndevices = { value = 64 }\n"
    )
    for devices, shown in ((64, "ring"), (32, "line")):
        assert str(Cluster.load(path, devices).network.levels[1].topology) == shown


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00binary")
    fails(path, "is not a TOML file")


@pytest.mark.parametrize(
    ("devices", "used"), [(256, 64), (64, 72), (144, 72), (73, 72), (2496, 64)], ids=lambda count: str(count)
)
def test_of_racks_that_are_not_full_as_many_devices_are_used_of_each(devices, used):
    network = Cluster.load("gb200-nvl72", devices).network
    assert network.sizes[0] == used
    assert Cluster.load("gb200-nvl72", devices, devices_per_node=32).network.sizes[0] == 32
