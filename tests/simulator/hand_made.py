"""Devices, networks and prices whose results can be computed by hand."""

from dataclasses import dataclass, field
from math import inf

from minidl.kernels.meta import KernelCall
from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.assembly import training_program
from minidl.parallel.layout import layout
from minidl.parallel.prepare import FLOPS_PER_BYTE
from minidl.parallel.program import Program
from simulator.calibration import Calibration, identity
from simulator.compute import Roofline
from simulator.compute.device import PRECISIONS
from simulator.compute.products import Products
from simulator.engine import Engine
from simulator.hardware import Cluster, Processors
from simulator.network import Level, Levels, Link
from simulator.network.topologies import Switch
from simulator.probes.between_workers import COLLECTIVES, IN_LAYERS, SIDES
from simulator.probes.sizes import ON_CPU
from simulator.segments import Segment, placed


@dataclass(frozen=True)
class PerCall:
    """Every kernel call that moves bytes takes `seconds`."""

    seconds: float = 1.0
    instruction_seconds: float = 0.0
    dispatch_seconds: float = 0.0
    device: str = "cpu"

    def flops_per_byte(self, dtype: str) -> float:
        return FLOPS_PER_BYTE

    def price(self, call: KernelCall):
        return (self.seconds if call.bytes_read + call.bytes_written else 0.0), 1.0


@dataclass(frozen=True)
class Free:
    """A network that costs nothing."""

    one_copy = False

    def send_seconds(self, source, to, nbytes):
        return 0.0

    def receive_seconds(self, source, to, nbytes):
        return 0.0

    def collective_seconds(self, name, ranks, nbytes, workers):
        return 0.0

    layer_seconds = collective_seconds


def cluster(compute=None, network=None, devices=64, cores=None, turn=0.0, precisions=PRECISIONS) -> Cluster:
    """Devices of 1 GB and 1 FLOP/s; with `cores`, ranks that share the processors of one machine."""
    processors = Processors(cores, turn_seconds=turn) if cores else None
    return Cluster(
        "by hand", devices, compute or PerCall(), network or Free(), 1e9, dict.fromkeys(precisions, 1.0), processors
    )


def roofline(matrix_flops=100.0, products=None, **changes) -> Roofline:
    """100 FLOP/s in tiles of 4 x 8 on 2 units, 10 FLOP/s elsewhere, 1,000 bytes a second, launches of 1 ms."""
    figures = dict(
        peak_flops=dict.fromkeys(PRECISIONS, matrix_flops), vector_flops=10.0, memory_bandwidth=1000.0,
        launch_seconds=1e-3, products=products or Products(units=2, tiles=((4, 8),), memory_bandwidth=1000.0),
    )  # fmt: skip
    return Roofline(**figures | changes)


def links(alpha=1e-6, bandwidth=1e9, node_devices=8, slow_alpha=1e-5, slow_bandwidth=1e8) -> Levels:
    """Nodes with a switch; each device has an adapter, and all of these meet at another switch."""
    return Levels((
        Level("node", node_devices, node_devices, Switch(), Link(alpha, bandwidth)),
        Level("network", inf, 64, Switch(), Link(slow_alpha, slow_bandwidth), adapters=node_devices),
    ))  # fmt: skip


@dataclass
class FixedPrices:
    """Prices by type of instruction; what is not named costs nothing.

    A forward or backward, or half of one, costs its price for each bucket.
    """

    seconds: dict
    cluster: Cluster = field(default_factory=cluster)

    def _of(self, i) -> float:
        times = len(i.buckets) if isinstance(i, I.ThroughBuckets) else 1
        return times * float(self.seconds.get(type(i), 0.0))

    def alike(self, nodes):
        return list(range(len(nodes)))

    def placed(self, rank, i):
        return placed(self.segments(rank, i))

    def segments(self, rank, i):
        return (Segment(self._of(i), 1.0, None),)

    def send(self, source, to, i):
        return self._of(i)

    def receive(self, source, to, i):
        return 0.0

    def collective(self, rank, i):
        return self._of(i)

    def details(self, rank, i, call=None):
        return None


def program(plan: Plan, buckets: int = 1) -> Program:
    """The training program of a chain of `buckets` equal blocks a chunk, each a bucket of its own."""
    blocks = plan.pipeline * plan.chunks * buckets
    return training_program(plan, layout(plan, [1.0] * blocks, [2**20] * blocks))


def run(plan: Plan, seconds: dict, buckets: int = 1, cores: int | None = None, turn: float = 0.0, steps: int = 1):
    """(seconds of a step, its trace) at prices by type of instruction; of several steps, seconds from the last but one.

    The single step takes until all has ended, gathers too.
    """
    engine = Engine(program(plan, buckets), FixedPrices(seconds, cluster(cores=cores, turn=turn)), steps)
    step = engine.run()
    return step, engine.trace()


POINTS = [[64, 1e-6], [1 << 20, 1e-4]]


def made_up(**changes) -> Calibration:
    """A calibration of this machine that nobody has measured."""
    figures = dict(
        machine=identity(),
        oversubscription=1.0,
        turn_seconds=1e-4,
        compute={
            "gemm_sizes": [4, 16], "gemm_seconds": [1e-6] * 8, "kernels": {"add": POINTS}, "contention": [[64, 1.5]],
            "matmul_contention": 1.2, "python": [[64, 1e-6]], "instruction_seconds": 1e-6,
        },
        network={
            "collectives": dict.fromkeys((*COLLECTIVES, "alone"), POINTS),
            "layers": dict.fromkeys((*IN_LAYERS, *SIDES), POINTS), "send": POINTS, "receive": POINTS,
        },
        memory_bytes=1e9, peak_flops=1e11, probe_seconds=[1e-3, 1e-3],
    )  # fmt: skip
    return Calibration(**figures | changes)


def made_up_gpu(**changes) -> Calibration:
    """A calibration of the GPU, or its emulator, that nobody has measured."""
    machine = changes.get("machine") or identity("cuda")
    return made_up(**{"network": None, "turn_seconds": 0.0, "probe_seconds": None} | changes | {"machine": machine})


def made_up_whole(**changes) -> Calibration:
    """A made-up calibration with all sizes, of which `python -m simulator calibrate` prints some: 77 GFLOP/s at 64³."""
    sizes = ON_CPU.gemm
    points = [[64 << (3 * i), 1e-6 * (i + 1)] for i in range(6)]
    seconds = [1e-6] * len(sizes) ** 3
    seconds[(sizes.index(64) * len(sizes) + sizes.index(64)) * len(sizes) + sizes.index(64)] = 2 * 64**3 / 77e9
    compute = made_up().compute | {"gemm_sizes": sizes, "gemm_seconds": seconds}
    network = {
        "collectives": {n: points for n in (*COLLECTIVES, "alone")},
        "layers": {n: points for n in (*IN_LAYERS, *SIDES)}, "send": points, "receive": points,
    }  # fmt: skip
    return made_up(**{"compute": compute, "network": network} | changes)
