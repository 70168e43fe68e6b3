"""TransformerGroups: how the ranks of a mesh share the layers and the sequences of a transformer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl import nn
from minidl.parallel.group import ProcessGroup
from minidl.parallel.layers import SequenceParallelDropout, summed_over
from minidl.parallel.mesh import Mesh


class TransformerGroups(NamedTuple):
    """tensor: the ranks that share the layers. context: those that share the sequences; None for a single rank.

    sequence_parallel: between the layers that they share, the tensor ranks have slices of their part of the sequence.
    """

    tensor: ProcessGroup | None = None
    context: ProcessGroup | None = None
    sequence_parallel: bool = False

    @classmethod
    def of(cls, mesh: Mesh | None) -> TransformerGroups:
        return cls(mesh.group("tensor"), mesh.group("context"), mesh.sequence_parallel) if mesh else cls()

    def on_slices(self, module: nn.Module) -> nn.Module:
        """A module between the shared layers: its gradients are summed where each rank has a slice of the sequence."""
        return summed_over(module, self.tensor) if self.sequence_parallel else module

    def dropout(self, p: float) -> nn.Dropout:
        """Between the shared layers."""
        return SequenceParallelDropout(p, self.tensor) if self.sequence_parallel else nn.Dropout(p)

    def slice_of(self, positions: np.ndarray) -> np.ndarray:
        """Of this rank's part of a sequence, what it has between the shared layers."""
        return np.split(positions, self.tensor.size)[self.tensor.rank] if self.sequence_parallel else positions

    def check_sequence(self, sequence: int) -> None:
        """ValueError unless a sequence can be shared."""
        context, tensor = self.context.size if self.context else 1, self.tensor.size if self.tensor else 1
        if context > 1 and sequence % (2 * context):
            raise ValueError(f"gpt: sequence={sequence} is not divisible by 2 × context={context}")
        if self.sequence_parallel and sequence // context % tensor:
            of = f"context={context} × " if context > 1 else ""
            raise ValueError(
                f"gpt: sequence={sequence} is not divisible by {of}tensor={tensor}, as sequence_parallel needs"
            )
