"""A program proven and run against a cluster's clocks: in one pass where that can be, else event by event."""

from __future__ import annotations

from minidl.parallel.program import Program
from minidl.parallel.structure import run_whole, structure_of
from minidl.trace import Trace
from simulator.engine import Engine
from simulator.prices import Prices
from simulator.timeline import Timeline


def simulation(program: Program, prices: Prices, steps: int = 2) -> Timeline | Engine:
    """Prove `program` and run so many steps of it at `prices`. ProgramError if it is wrong."""
    structure = structure_of(program)
    if in_one_pass(program, prices):
        return Timeline(structure, prices, steps)
    engine = Engine(program, prices, steps)
    engine.run()
    return engine


def in_one_pass(program: Program, prices: Prices) -> bool:
    """Whether what comes first does not depend on times: ranks share no cores, and meet in one way inside layers."""
    if prices.cluster.processors is not None:
        return False
    if not program.edited or program.costs is None:
        return True  # one of each stage is run
    mesh = program.plan.mesh(0)
    return sum(len(mesh.ranks(*axes)) > 1 for axes in program.costs.layer_axes()) <= 1


def trace_of(program: Program, found: Timeline | Engine) -> Trace:
    """What happened in the steps that were run: on one rank of each stage, or on all of an edited program."""
    if isinstance(found, Timeline) and not (program.edited and len(found.structure.ranks) == len(program)):
        found = Timeline(run_whole(program), found.prices, found.steps)
    return found.trace()
