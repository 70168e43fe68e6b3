"""Cluster: the devices of a machine, what connects them, and how they are loaded from the catalog."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minidl.display import Displayed, facts
from minidl.units import counted, scaled
from minidl.validation import check_count
from simulator import schema
from simulator.compute import Compute, Roofline
from simulator.compute.roofline import BYTES
from simulator.network import Link, Links, Network
from simulator.schema import Schema

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
if TYPE_CHECKING:
    from rich.console import RenderableType

CATALOG = Path(__file__).parent / "catalog"


def _figure(of: Schema) -> Schema:
    """A table {value, source}; a file of one's own may leave the source out."""
    entry = schema.table({"value": of, "source": schema.text}, optional=("source",))

    def check(place: str, value: object) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"{place} = {value} is not a table: write {{ value = {value} }}")
        entry(place, value)

    return check


def _figures(**schemas: Schema) -> dict[str, Schema]:
    return {name: _figure(of) for name, of in schemas.items()}


LINK = _figures(bandwidth=schema.POSITIVE, bandwidth_fraction=schema.SHARE, latency_us=schema.NOT_NEGATIVE)
DEVICE = _figures(
    memory_gb=schema.POSITIVE, memory_bandwidth=schema.POSITIVE, memory_fraction=schema.SHARE,
    vector_flops=schema.POSITIVE, launch_us=schema.NOT_NEGATIVE, gemm_fraction=schema.SHARE,
    gemm_depth=schema.NOT_NEGATIVE, gemm_tile_m=schema.COUNT, gemm_tile_n=schema.COUNT, gemm_units=schema.COUNT,
)  # fmt: skip
PEAKS = schema.table(_figures(**dict.fromkeys(BYTES, schema.POSITIVE)), optional=tuple(BYTES))
FILE = schema.table({
    "name": schema.text,
    "devices": schema.COUNT,
    "precision": schema.text,
    "device": schema.table(DEVICE | {"peak_flops": PEAKS}),
    "node": schema.table({"name": schema.text} | _figures(devices=schema.COUNT) | LINK, optional=("name",)),
    "network": schema.table(LINK),
})  # fmt: skip


@dataclass(frozen=True)
class Processors:
    """The cores that the ranks of one machine share: rank r runs on core r modulo `cores`.

    oversubscription: by what factor two ranks on one core take longer than one after the other would: they empty each
    other's caches. turn_seconds: how long ranks that share cores take to go on after they waited for one another, in a
    collective or for a message: the operating system gives the cores to others first.
    """

    cores: int
    oversubscription: float = 1.0
    turn_seconds: float = 0.0

    def core_of(self, rank: int) -> int:
        return rank % self.cores


@dataclass(frozen=True)
class Node:
    """What devices come in: what people call it, a "DGX A100", and how many it has."""

    name: str
    devices: int


@dataclass(frozen=True)
class Cluster(Displayed):
    """Devices and what connects them.

    compute: prices kernel calls. network: prices communication. memory_bytes: of one device. peak_flops: of one device,
    in FLOP/s at the precision used. processors: the cores, where ranks run on those of one machine and communicate with
    them; None where every rank has a device, and a network that works beside it. node: None where it has no name.
    """

    name: str
    devices: int
    compute: Compute
    network: Network
    memory_bytes: float
    peak_flops: float
    processors: Processors | None = None
    node: Node | None = None

    @property
    def size(self) -> str:
        """In words: "1,024 devices (128 DGX A100)", or "2 cores of this machine"."""
        count = counted(self.devices, "device" if self.processors is None else "core")
        if self.node is None:
            return f"{count} of {self.name}"
        if self.devices < self.node.devices:
            return f"{count} of one {self.node.name}"
        return f"{count} ({-(-self.devices // self.node.devices):,} {self.node.name})"

    def __repr__(self) -> str:
        each = f"{scaled(self.memory_bytes, 'B')} and {scaled(self.peak_flops, 'FLOP/s')} each"
        return f"<Cluster of {counted(self.devices, 'device')}, {each}: {self.name}>"

    def __rich__(self) -> RenderableType:
        shared = f": ranks share {counted(self.processors.cores, 'core')}" if self.processors else ""
        return facts(self.name, [
            ("devices", f"{self.devices:,}{shared}"),
            ("memory", self._each_and_all(self.memory_bytes, "B")),
            ("peak", self._each_and_all(self.peak_flops, "FLOP/s")),
            ("kernels", str(self.compute)),
            ("links", str(self.network)),
        ])  # fmt: skip

    def _each_and_all(self, amount: float, unit: str) -> str:
        return f"{scaled(amount, unit)} a device, {scaled(self.devices * amount, unit)} in all"

    @staticmethod
    def catalog() -> list[str]:
        """The names that `load` knows."""
        return sorted(path.stem for path in CATALOG.glob("*.toml"))

    @classmethod
    def load(cls, name: str | Path, devices: int | None = None, precision: str | None = None) -> Cluster:
        """A cluster from the catalog, or from the TOML file at a path, with `devices` devices.

        precision: of the matrix products and activations, by default the system's own. ValueError for an unknown name,
        a figure that is missing, unknown or not what it must be, or a precision that the device does not have.
        """
        if devices is not None:
            check_count("devices", devices)
        path = CATALOG / f"{name}.toml"
        if not path.exists():
            path = Path(name)
        if not path.is_file():
            known = ", ".join(cls.catalog())
            raise ValueError(f"no cluster {str(name)!r}: neither a file nor one of {known} (this machine: calibrate())")
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from None
        try:
            FILE("", table)
            return _from_table(table, devices, precision)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _from_table(table: Mapping, devices: int | None, precision: str | None) -> Cluster:
    """A cluster from a catalog file, which fits FILE."""
    device, node, network = (_values(table[part]) for part in ("device", "node", "network"))
    precision = precision or table["precision"]
    peaks = _values(table["device"]["peak_flops"])
    if precision not in peaks:
        raise ValueError(f"{table['name']} has no precision {precision!r}: it has {', '.join(peaks) or 'none'}")
    count = devices if devices is not None else table["devices"]
    compute = Roofline(
        precision=precision,
        matrix_flops=peaks[precision] * device["gemm_fraction"],
        vector_flops=device["vector_flops"],
        memory_bandwidth=device["memory_bandwidth"] * device["memory_fraction"],
        launch_seconds=device["launch_us"] * 1e-6,
        tile=(device["gemm_tile_m"], device["gemm_tile_n"]),
        units=device["gemm_units"],
        depth=device["gemm_depth"],
    )
    links = Links(
        node_devices=node["devices"],
        node=Link(node["latency_us"] * 1e-6, node["bandwidth"] * node["bandwidth_fraction"]),
        network=Link(network["latency_us"] * 1e-6, network["bandwidth"] * network["bandwidth_fraction"]),
    )
    name = table["node"].get("name")
    return Cluster(
        table["name"], count, compute, links, device["memory_gb"] * 1e9, peaks[precision],
        node=name and Node(name, node["devices"]),
    )  # fmt: skip


def _values(table: Mapping) -> dict:
    """The figures of a table without their sources."""
    return {key: entry["value"] for key, entry in table.items() if isinstance(entry, dict) and "value" in entry}
