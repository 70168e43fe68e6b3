"""The clusters that a command can be asked for by name."""

import argparse
from pathlib import Path

from simulator.hardware import Cluster

THIS_MACHINE = "this-machine"


def clusters() -> str:
    """Their names."""
    return ", ".join((THIS_MACHINE, *Cluster.catalog()))


def cluster_name(text: str) -> str:
    """The type of an argument that names a cluster, or a file of one."""
    if text != THIS_MACHINE and text not in Cluster.catalog() and not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no cluster {text!r}: neither a file nor one of {clusters()}")
    return text
