"""What devices hold under a software stack: the arrays of the program, and what the stack has beside them."""

from __future__ import annotations

import math
from dataclasses import replace

from minidl.parallel.blocks import several
from minidl.parallel.memory import Memory, peak_memory
from minidl.parallel.plan import PRECISIONS
from minidl.parallel.program import Program
from minidl.parallel.structure import steps_of
from simulator.stacks import Stack


def stage_memories(program: Program, stack: Stack) -> tuple[Memory, ...]:
    """The arrays of a rank of each stage when it holds most, gradients and loss in the dtypes that the stack says."""
    steps, plan, beside = steps_of(program), program.plan, _copies_for_loss(program, stack)
    peaks = (peak_memory(program, rank, steps[rank], beside) for rank in plan.mesh(0).ranks("pipeline"))
    if not stack.gradients:
        return tuple(peaks)
    wider = PRECISIONS[stack.gradients] / PRECISIONS[plan.precision]
    return tuple(replace(memory, gradients=wider * memory.gradients) for memory in peaks)


def _copies_for_loss(program: Program, stack: Stack) -> float:
    """Bytes of the logits and of their gradient in the dtype of the loss, where that is not the plan's."""
    if stack.loss in ("", program.plan.precision):
        return 0.0
    output = program.costs.profile.blocks[-1].output
    numbers = sum(math.prod(array.shape) for array in several(output) if array.dtype.kind == "f")
    return 2.0 * numbers * PRECISIONS[stack.loss]


def device_bytes(memory: Memory, stack: Stack) -> float:
    """What a device needs for these arrays: the stack's workspace, and what its allocator has and cannot use."""
    return memory.total / (1 - stack.fragmentation) + 1e9 * stack.workspace_gb
