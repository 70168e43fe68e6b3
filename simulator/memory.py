"""Bytes per device: parameters, gradients, optimizer state, activations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from minidl.parallel.layout import Layout
from minidl.parallel.profile import ChainProfile


@dataclass(frozen=True)
class Memory:
    """Bytes that a rank of one stage holds at its peak."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimizer + self.activations


def stage_memory(
    profile: ChainProfile, layout: Layout, stage: int, micro_batches: int, scale: float, shards: int = 1
) -> Memory:
    """Memory of a rank of `stage` that keeps the activations of `micro_batches` alive at once.

    scale: bytes of an activation, gradient or parameter relative to float32. Below 1, training is in mixed precision:
    the optimizer also keeps a float32 master of each parameter (Micikevicius et al. 2018, section 3.1). shards: the
    ranks among which what the optimizer keeps is shared (Rajbhandari et al. 2020, figure 1).
    """
    blocks = profile.blocks[slice(*layout.stages[stage])]
    parameters = sum(block.parameter_bytes for block in blocks)
    master = parameters if scale < 1 else 0
    saved = sum(block.saved_bytes for block in blocks)
    # What one block keeps as its output and the next as its input is one array.
    saved -= sum(a.output.nbytes for a, b in pairwise(blocks) if a.keeps_output and b.keeps_input)
    return Memory(
        parameters=parameters * scale,
        gradients=parameters * scale,
        optimizer=(sum(block.state_bytes for block in blocks) + master) / shards,
        activations=micro_batches * saved * scale,
    )
