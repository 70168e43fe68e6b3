"""Losses. A loss is a sum over targets and the number of them, so that a batch may be computed in parts.

The loss of a batch is the sum of the parts' sums over the sum of their weights, however the batch was cut.
"""

from minidl import ops
from minidl.nn.module import Module
from minidl.tensor import Tensor


class Loss(Module):
    """A subclass writes `sum_and_weight`; calling the loss gives the mean, as in PyTorch."""

    def sum_and_weight(self, output: Tensor, target: Tensor) -> tuple[Tensor, float]:
        """The loss summed over all targets, a scalar tensor, and the weight that divides it to the mean."""
        raise NotImplementedError(f"{type(self).__name__} has no sum_and_weight")

    def forward(self, output, target):
        total, weight = self.sum_and_weight(output, target)
        return total / weight


class CrossEntropyLoss(Loss):
    """-log softmax(output)[target] of output (..., classes) and target (...) of int64: the classes come last.

    Both (batch, classes) and the (batch, sequence, classes) of a language model work as they are. Weight: one a target.
    """

    def sum_and_weight(self, output, target):
        return ops.cross_entropy(output, target, reduction="sum"), float(target.numel())


class MSELoss(Loss):
    """(output - target)^2, elements of equal shape. Weight: one an element."""

    def sum_and_weight(self, output, target):
        if output.shape != target.shape:
            raise ValueError(f"MSELoss: the output has shape {output.shape}, the target {target.shape}")
        difference = output - target
        return (difference * difference).sum(), float(output.numel())
