"""A file that describes a cluster: what it must say, the catalog's parts that it names, and the Cluster it gives.

Every figure is a table {value, source}. A figure that a file leaves out has a default, with a source of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from math import inf, prod
from pathlib import Path

from simulator import schema
from simulator.compute import device
from simulator.compute.device import DEVICE
from simulator.network import Level, Levels, Link
from simulator.network.topologies import Bus, FullyConnected, Rings, Switch, Topology, Torus, slice_shape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CATALOG = Path(__file__).parent / "catalog"

TIMES = ("latency_us", "start_us", "ramp_us", "floor_us", "floor_step_us")
CALIBRATED = schema.figures(bandwidth_fraction=schema.SHARE, **dict.fromkeys(TIMES, schema.MICROSECONDS))
LINK = schema.table({"name": schema.text} | schema.figures(bandwidth=schema.BANDWIDTH) | CALIBRATED,
                    optional=("name", *CALIBRATED))  # fmt: skip
AS_A100 = "assumed as on NVLink 3: fitted to NCCL's all-reduces on 2 to 8 A100, vTrain repository"
DEFAULTS = {  # of a link that leaves figures out: between devices, and between what holds several
    True: dict(bandwidth_fraction=(0.793, AS_A100), latency_us=(1.625, AS_A100), start_us=(7.6, AS_A100),
               ramp_us=(5.7, AS_A100), floor_us=(19.15, AS_A100), floor_step_us=(3.4, AS_A100)),
    False: dict(bandwidth_fraction=(0.85, "assumed: what NCCL reaches of an adapter"),
                latency_us=(10.0, "assumed: a step of NCCL over InfiniBand"),
                **dict.fromkeys(("start_us", "ramp_us", "floor_us", "floor_step_us"), (0.0, "assumed: none"))),
}  # fmt: skip
MIB = 2.0**20

UNIT = schema.figures(devices=schema.COUNT, job_devices=schema.COUNT)
JOINED = schema.figures(
    adapters=schema.COUNT,
    ring_adapters=schema.list_of(schema.POSITIVE),
    oversubscription=schema.FACTOR,
    in_network=schema.SHARE,
)
OWN = {  # figures of each topology beside those of all
    "switch": {}, "bus": {}, "fully-connected": {}, "ring": {}, "fat-tree": {}, "rail-optimised": {},
    "hybrid-cube-mesh": schema.figures(rings=schema.list_of(schema.POSITIVE)),
    "torus": schema.figures(shape=schema.list_of(schema.COUNT), cube=schema.COUNT),
}  # fmt: skip


def _level(place: str, value: object) -> None:
    """The schema of a level: it depends on its topology."""
    topology = value.get("topology") if isinstance(value, dict) else None
    entries = {"name": schema.text, "topology": schema.one_of(*OWN), "link": _part("links", LINK)}
    entries |= UNIT | JOINED | OWN.get(topology, {})
    schema.table(entries, optional=("cube", *UNIT, *JOINED))(place, value)


def _part(folder: str, whole: schema.Schema) -> schema.Schema:
    """A part of the catalog by its name, or a table."""

    def check(place: str, value: object) -> None:
        if not isinstance(value, str):
            whole(place, value)
        elif value not in names(folder):
            known = ", ".join(names(folder))
            raise ValueError(f"{place} = {value!r} is neither a table nor one of the catalog's {folder}: {known}")

    return check


def _system(place: str, value: object) -> None:
    if value not in names():
        raise ValueError(f"{place} = {value!r} is not one of the catalog: {', '.join(names())}")


FILE = schema.table({
    "like": _system,
    "name": schema.text,
    "devices": schema.COUNT,
    "device": _part("devices", DEVICE),
    "levels": schema.table_of(_level),
}, optional=("like", "name", "devices", "device", "levels"))  # fmt: skip


@cache
def names(folder: str = "") -> tuple[str, ...]:
    """The names of the catalog's systems, or of the parts in a folder of it."""
    return tuple(sorted(path.stem for path in (CATALOG / folder).glob("*.toml")))


def described(name: str | Path, whole: bool = True) -> dict:
    """All that a system of the catalog, or the file at a path, says: its parts and defaults in their places.

    Its entries are name, devices, device, device_name and levels; not whole, it may lack device and device_name, as a
    system does whose device nobody knows. ValueError, in one sentence with file, table and key,
    for what is missing, unknown or not what it must be.
    """
    known = str(name) in names()
    path = CATALOG / f"{name}.toml" if known else Path(name)
    if not path.is_file():
        listed = ", ".join(names())
        raise ValueError(f"no cluster {str(name)!r}: neither a file nor one of {listed} (this machine: calibrate())")
    try:
        table = _merged(_part_of_catalog("", str(name)) if known else _read(path, FILE))
        for needed in ("name", "levels", *["device"] * whole):
            if needed not in table:
                raise ValueError(f"the file lacks {needed!r}")
        return _resolved(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(path: Path, fits: schema.Schema) -> dict:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not a TOML file: {error}") from None
    fits("", table)
    return table


@cache
def _part_of_catalog(folder: str, name: str) -> dict:
    return _read(CATALOG / folder / f"{name}.toml", {"": FILE, "devices": DEVICE, "links": LINK}[folder])


def _merged(table: dict) -> dict:
    """With what the table leaves out taken from what it is like; a level that it has is given whole."""
    if "like" not in table:
        return table
    base = _merged(_part_of_catalog("", table["like"]))
    return base | table | {"levels": base.get("levels", {}) | table.get("levels", {})}


def _resolved(table: dict) -> dict:
    """With parts instead of their names, and defaults."""
    levels = {}
    for key, level in table["levels"].items():
        link = level["link"] if isinstance(level["link"], dict) else _part_of_catalog("links", level["link"])
        defaults = {name: {"value": value, "source": source} for name, (value, source) in DEFAULTS[not levels].items()}
        levels[key] = level | {"link": link | {key: figure for key, figure in defaults.items() if key not in link}}
    table = table | {"levels": levels}
    if isinstance(table.get("device"), str):
        whole = device.described(_part_of_catalog("devices", table["device"]))
        table |= {"device": whole, "device_name": table["device"]}
    elif "device" in table:
        table |= {"device": device.described(table["device"]), "device_name": table["name"]}
    smallest = unit_sizes(table)[0]
    if "devices" not in table and smallest == inf:
        raise ValueError("the file lacks 'devices', and so does its first level")
    return {"devices": smallest} | table


def unit_sizes(table: Mapping) -> list[float]:
    """Devices in a unit of each level, from the smallest on; infinity for a level that says none, the last alone."""
    levels = list(table["levels"].items())
    sizes = [level["devices"]["value"] if "devices" in level else inf for _, level in levels]
    if not levels:
        raise ValueError("levels has no level")
    for name in ("adapters", "ring_adapters", "oversubscription"):
        if name in levels[0][1]:
            raise ValueError(f"levels.{levels[0][0]} is the first, which joins devices: it has no {name!r}")
    for (key, _), (size, larger) in zip(levels, pairwise(sizes), strict=False):
        if size == inf:
            raise ValueError(f"levels.{key} lacks 'devices': only the last level joins all there are")
        if larger % size and larger < inf:
            raise ValueError(f"levels.{key}.devices = {size} does not divide the {larger} of the level above it")
    for (key, level), size, below in zip(levels, sizes, [1, *sizes], strict=False):
        if "shape" in level and prod(level["shape"]["value"]) * below != size:
            raise ValueError(f"levels.{key}.shape = {level['shape']['value']} is not one of {size / below:g} places")
    return sizes


def network(table: Mapping, devices: int, devices_per_node: int | None = None) -> Levels:
    """The network of `devices` devices of a described cluster.

    devices_per_node: how many are used of a unit of the first level: a node, a rack, a slice. By default it is equally
    many of as few units as hold all devices, or the unit's job_devices of more, where one of these goes. ValueError
    where there are not so many.
    """
    sizes, first = unit_sizes(table), schema.values(next(iter(table["levels"].values())))
    units, job = -(-devices // sizes[0]), first.get("job_devices", sizes[0])
    usual = devices // units if devices % units == 0 else job if devices % job == 0 else sizes[0]
    node = devices_per_node or (sizes[0] if units == 1 else int(usual))
    if node > sizes[0]:
        raise ValueError(f"devices_per_node={node}: a {table['name']} has {sizes[0]}")
    if devices > sizes[-1] / sizes[0] * node:
        raise ValueError(f"{table['name']} has {sizes[-1] / sizes[0] * node:.0f} devices, not {devices}")
    levels, below, whole_below = [], 1, 1
    for level, size in zip(table["levels"].values(), sizes, strict=True):
        used = size if size == inf else int(size / sizes[0] * node)
        whole = used // below if used < inf else inf
        levels.append(_level_of(level, used, whole, -(-min(used, devices) // below), below / whole_below))
        below, whole_below = used, size
    return Levels(tuple(levels))


def _level_of(table: Mapping, size: float, whole: float, places: int, used: float) -> Level:
    """A level of units of so many devices, `whole` places each, of which `places` are there. used: of each, a share."""
    figures, link = schema.values(table), schema.values(table["link"])
    adapters, in_network, topology = figures.get("adapters", 1), figures.get("in_network"), table["topology"]
    return Level(
        table["name"], size, places, _topology(topology, figures, places, whole), _link(link),
        adapters=max(1, adapters * used), ring_adapters=tuple(figures.get("ring_adapters", ())),
        oversubscription=figures.get("oversubscription", 1.0), rails=topology == "rail-optimised",
        in_network=in_network and in_network * link["bandwidth"],
    )  # fmt: skip


def _link(figures: Mapping) -> Link:
    return Link(
        figures["latency_us"] * 1e-6, figures["bandwidth"] * figures["bandwidth_fraction"],
        start=figures["start_us"] * 1e-6, ramp=figures["ramp_us"] * 1e-6 / MIB**0.5, floor=figures["floor_us"] * 1e-6,
        floor_latency=figures["floor_step_us"] * 1e-6,
    )  # fmt: skip


def _topology(name: str, figures: Mapping, count: int, whole: float) -> Topology:
    """Of `count` places of the `whole`; those of a ring or a torus are a slice of it."""
    if name == "bus":
        return Bus(count)
    if name == "fully-connected":
        return FullyConnected()
    if name == "hybrid-cube-mesh":
        return Rings(tuple(figures["rings"]))
    if name == "ring":
        return Torus((count,), (count == whole,))
    if name == "torus":
        sides, cube = sorted(figures["shape"], reverse=True), figures.get("cube")
        shape = slice_shape(count, sides, cube)
        wraps = (
            shape[axis] == side or bool(cube and shape[axis] % cube == 0)
            for axis, side in enumerate(sides[: len(shape)])
        )
        return Torus(shape, tuple(wraps))
    return Switch()
