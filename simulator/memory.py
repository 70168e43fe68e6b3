"""What devices hold under a software stack: the arrays of the program, and what the stack has beside them."""

from __future__ import annotations

import math
from dataclasses import replace

from minidl.parallel.blocks import several
from minidl.parallel.memory import Memory, peak_memory
from minidl.parallel.plan import PRECISIONS
from minidl.parallel.program import Program
from minidl.parallel.remembered import Remembered
from minidl.parallel.structure import steps_of
from simulator.stacks import Stack

KNOWN = Remembered(256)  # peaks


def stage_memories(program: Program, stack: Stack) -> tuple[Memory, ...]:
    """The arrays of a rank of each stage when it holds most, gradients and loss in the dtypes that the stack says."""
    plan, beside = program.plan, _copies_for_loss(program, stack)
    peaks = _peaks(program, beside)
    if not stack.gradients:
        return peaks
    wider = PRECISIONS[stack.gradients] / PRECISIONS[plan.precision]
    return tuple(replace(memory, gradients=wider * memory.gradients) for memory in peaks)


def _peaks(program: Program, beside: float) -> tuple[Memory, ...]:
    """What a rank of each stage holds when it holds most.

    Of unedited programs it is found once for all plans with the same lists and chain that update shares of the same
    sizes, however many micro-batches there are.
    """
    steps, plan, costs = steps_of(program), program.plan, program.costs

    def found() -> tuple[Memory, ...]:
        return tuple(peak_memory(program, rank, steps[rank], beside) for rank in plan.mesh(0).ranks("pipeline"))

    if program.edited:
        return found()
    shards = (plan.sharding, *plan.axes.values()) if plan.sharding != "none" else ()
    return KNOWN.get_for((costs.profile, costs.layout, *steps.values()), (plan.precision, shards, beside), found)


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
