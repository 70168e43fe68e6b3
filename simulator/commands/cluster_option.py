"""The option --cluster: the names it takes, and the Cluster for this machine, which is one of them."""

import argparse
from collections.abc import Callable
from pathlib import Path

from minidl.commands.progress import Tell
from simulator.calibrate import calibration
from simulator.hardware import Cluster

THIS_MACHINE = "this-machine"


def clusters() -> str:
    """The names of clusters, this machine's first."""
    return ", ".join((THIS_MACHINE, *Cluster.catalog()))


def cluster_name(text: str) -> str:
    """The type of an argument that names a cluster, or a file of one."""
    if text != THIS_MACHINE and text not in Cluster.catalog() and not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no cluster {text!r}: neither a file nor one of {clusters()}")
    return text


def add_cluster_option(add: Callable[..., object]) -> None:
    """--cluster, of a command that measures this machine where no other is named. add: `add_argument` of a parser."""
    add("--cluster", type=cluster_name, default=THIS_MACHINE, metavar="NAME",
        help=f"what to simulate, and measure nothing: one of {clusters()}, or a TOML file (default: {THIS_MACHINE}, "
        "which is measured)")  # fmt: skip


def this_machine(tell: Tell) -> Cluster:
    """This machine, calibrated first where it is not yet."""
    return calibration(progress=lambda what: tell(f"calibrating: {what}")).cluster()
