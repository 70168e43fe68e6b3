"""The feed-forward layers of transformers, their inner features split over a group."""

from minidl import nn, ops
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear


class FeedForward(nn.Module):
    """down(activation(up(x))), the inner features split over the group.

    sequence_parallel: the group has slices of the sequence before and after it. approximate: see `nn.GELU`. activation:
    "gelu" or "relu".
    """

    def __init__(
        self, hidden: int, inner: int, bias: bool = True, group=None, sequence_parallel: bool = False,
        approximate: str = "tanh", activation: str = "gelu",
    ):  # fmt: skip
        self.approximate, self.activation = approximate, activation
        self.up = ColumnParallelLinear(hidden, inner, group, bias, sequence_parallel=sequence_parallel)
        self.down = RowParallelLinear(inner, hidden, group, bias, sequence_parallel)

    def forward(self, x):
        y = self.up(x)  # (batch, sequence, local inner)
        return self.down(ops.relu(y) if self.activation == "relu" else ops.gelu(y, self.approximate))


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, equation 6): down(silu(gate(x)) * up(x)), gate and up being the halves of one matrix."""

    def __init__(self, hidden: int, inner: int, bias: bool = True, group=None, sequence_parallel: bool = False):
        self.gate_up = ColumnParallelLinear(
            hidden, 2 * inner, group, bias, parts=2, sequence_parallel=sequence_parallel
        )
        self.down = RowParallelLinear(inner, hidden, group, bias, sequence_parallel)

    def forward(self, x):
        return self.down(ops.swiglu(self.gate_up(x)))  # of (batch, sequence, 2 * local inner)
