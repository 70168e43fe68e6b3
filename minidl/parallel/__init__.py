"""How training is spread over workers: a Plan becomes a Program, which is checked, run, simulated and drawn."""

from minidl.forkserver import forkserver
from minidl.parallel.checker import ProgramError, check
from minidl.parallel.group import ProcessGroup
from minidl.parallel.mesh import Mesh
from minidl.parallel.plan import Plan
from minidl.parallel.result import Run
from minidl.parallel.runtime.launch import launch
from minidl.parallel.train import train
from minidl.processes import WorkerError

__all__ = [
    "Mesh",
    "Plan",
    "ProcessGroup",
    "ProgramError",
    "Run",
    "WorkerError",
    "check",
    "forkserver",
    "launch",
    "train",
]
