"""Cluster: the devices of a machine, what connects them, and how they are loaded from the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from minidl.display import Displayed, facts
from minidl.units import counted, scaled
from minidl.validation import check_count, check_name_or_path
from simulator import cluster_file, schema
from simulator.compute import Compute
from simulator.compute.device import device
from simulator.network import Network

if TYPE_CHECKING:
    from rich.console import RenderableType


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

    compute: prices kernel calls. network: prices communication. memory_bytes: of one device. peaks: of the matrix
    products of one device, in FLOP/s by precision. processors: the cores, where ranks run on those of one machine and
    communicate with them; None where every rank has a device, and a network that works beside it. node: None where it
    has none. device: the name of its devices, by which stacks know them.
    """

    name: str
    devices: int
    compute: Compute
    network: Network
    memory_bytes: float
    peaks: Mapping[str, float]
    processors: Processors | None = None
    node: Node | None = None
    device: str = ""

    def peak_flops(self, precision: str) -> float:
        """FLOP/s of the matrix products of one device. ValueError for a precision that it does not have."""
        if precision not in self.peaks:
            has = ", ".join(self.peaks)
            raise ValueError(f"{self.name} has no precision {precision!r}: it has {has or 'none'}")
        return self.peaks[precision]

    @property
    def usual_precision(self) -> str:
        """In which one trains on it: the first that it has of bfloat16, float16 and float32."""
        return next((name for name in ("bfloat16", "float16", "float32") if name in self.peaks), "float32")

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
        peak = self.peak_flops(self.usual_precision)
        each = f"{scaled(self.memory_bytes, 'B')} and {scaled(peak, 'FLOP/s')} each"
        return f"<Cluster of {counted(self.devices, 'device')}, {each}: {self.name}>"

    def __rich__(self) -> RenderableType:
        peak = self.peak_flops(self.usual_precision)
        shared = f": ranks share {counted(self.processors.cores, 'core')}" if self.processors else ""
        return facts(self.name, [
            ("devices", f"{self.devices:,}{shared}"),
            ("memory", self._each_and_all(self.memory_bytes, "B")),
            ("peak", self._each_and_all(peak, "FLOP/s")),
            ("kernels", str(self.compute)),
            ("links", str(self.network)),
        ])  # fmt: skip

    def _each_and_all(self, amount: float, unit: str) -> str:
        return f"{scaled(amount, unit)} a device, {scaled(self.devices * amount, unit)} in all"

    @staticmethod
    def catalog() -> list[str]:
        """The names that `load` knows."""
        return list(cluster_file.names())

    @classmethod
    def load(cls, name: str | Path, devices: int | None = None, *, devices_per_node: int | None = None) -> Cluster:
        """A cluster from the catalog, or from the TOML file at a path, with `devices` devices.

        devices_per_node: how many are used of each node, rack or slice; by default equally many of as few as hold all
        devices, where that goes, and else all that each has. ValueError for an unknown name, or a figure that is
        missing, unknown or not what it must be, TypeError for what is neither a name nor a path.
        """
        check_name_or_path("cluster", name)
        if devices is not None:
            check_count("devices", devices)
        if devices_per_node is not None:
            check_count("devices_per_node", devices_per_node)
        table = cluster_file.described(name)
        count = devices if devices is not None else table["devices"]
        network = cluster_file.network(table, count, devices_per_node)
        smallest, figures = network.levels[0], table["device"]
        return cls(
            table["name"], count, device(figures), network, figures["memory_gb"]["value"] * 1e9,
            schema.values(figures["peak_flops"]), device=table["device_name"],
            node=None if smallest.size == inf else Node(smallest.name, smallest.size),
        )  # fmt: skip
