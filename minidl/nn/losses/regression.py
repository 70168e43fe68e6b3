"""Losses of numbers: the distance of each element of the output from the target's."""

from minidl import ops
from minidl.nn.losses.loss import ElementwiseLoss, check_range
from minidl.tensor import Tensor


class MSELoss(ElementwiseLoss):
    """(output - target)^2."""

    def elements(self, output, target):
        difference = output - target
        return difference * difference


class L1Loss(ElementwiseLoss):
    """|output - target|."""

    def elements(self, output, target):
        return ops.abs(output - target)


class HuberLoss(ElementwiseLoss):
    """A square near 0, d^2 / 2, and a line of slope delta beyond d = delta (Huber 1964, "Robust Estimation …").

    With c = min(d, delta), the loss of d = |output - target| is c (d - c / 2).
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction)
        if not delta > 0:
            raise ValueError(f"HuberLoss: delta={delta}, it must be above 0")
        self.delta = delta

    def elements(self, output, target):
        return _huber(ops.abs(output - target), self.delta)


class SmoothL1Loss(ElementwiseLoss):
    """The Huber loss over beta: |output - target| - beta / 2 beyond beta; with beta 0, the L1 loss (Girshick 2015)."""

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction)
        check_range(self, "beta", beta)
        self.beta = beta

    def elements(self, output, target):
        distance = ops.abs(output - target)
        return _huber(distance, self.beta) / self.beta if self.beta else distance


def _huber(distance: Tensor, delta: float) -> Tensor:
    capped = ops.clamp(distance, max=delta)
    return capped * (distance - 0.5 * capped)
