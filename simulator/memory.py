"""What devices hold under a software stack: the arrays of the program, and what the stack has beside them."""

from __future__ import annotations

from dataclasses import replace

from minidl.parallel.memory import Memory, peak_memory
from minidl.parallel.plan import PRECISIONS
from minidl.parallel.program import Program
from minidl.parallel.structure import steps_of
from simulator.stacks import Stack


def stage_memories(program: Program, stack: Stack) -> tuple[Memory, ...]:
    """The arrays of a rank of each stage when it holds most, gradients in the dtype in which the stack has them."""
    steps = steps_of(program)
    peaks = (peak_memory(program, rank, steps[rank]) for rank in program.plan.mesh(0).ranks("pipeline"))
    if not stack.gradients:
        return tuple(peaks)
    wider = PRECISIONS[stack.gradients] / PRECISIONS[program.plan.precision]
    return tuple(replace(memory, gradients=wider * memory.gradients) for memory in peaks)


def device_bytes(memory: Memory, stack: Stack) -> float:
    """What a device needs for these arrays: the stack's workspace, and what its allocator has and cannot use."""
    return memory.total / (1 - stack.fragmentation) + 1e9 * stack.workspace_gb
