"""Losses of numbers: the distance of each element of the output from the target's, both of one shape.

Weight: one an element.
"""

from minidl import ops
from minidl.nn.losses.loss import Loss, check_range, check_same_shape
from minidl.tensor import Tensor


class _ElementLoss(Loss):
    """A subclass writes `elements(difference)`."""

    def elements(self, difference: Tensor) -> Tensor:
        raise NotImplementedError

    def elements_and_weight(self, output, target):
        check_same_shape(self, output, target)
        return self.elements(output - target), float(output.numel())


class MSELoss(_ElementLoss):
    """(output - target)^2."""

    def elements(self, difference):
        return difference * difference


class L1Loss(_ElementLoss):
    """|output - target|."""

    def elements(self, difference):
        return ops.abs(difference)


class HuberLoss(_ElementLoss):
    """A square near 0, d^2 / 2, and a line of slope delta beyond d = delta (Huber 1964, "Robust Estimation …").

    With c = min(d, delta), the loss of d = |output - target| is c (d - c / 2).
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction)
        if not delta > 0:
            raise ValueError(f"HuberLoss: delta={delta}, it must be above 0")
        self.delta = delta

    def elements(self, difference):
        return _huber(ops.abs(difference), self.delta)


class SmoothL1Loss(_ElementLoss):
    """The Huber loss over beta: |output - target| - beta / 2 beyond beta; with beta 0, the L1 loss (Girshick 2015)."""

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction)
        check_range(self, "beta", beta)
        self.beta = beta

    def elements(self, difference):
        distance = ops.abs(difference)
        return _huber(distance, self.beta) / self.beta if self.beta else distance


def _huber(distance: Tensor, delta: float) -> Tensor:
    capped = ops.clamp(distance, max=delta)
    return capped * (distance - 0.5 * capped)
