"""Losses of yes or no: each element has a target from 0 to 1, and counts as one whatever the class weights."""

from minidl import ops
from minidl.nn.losses.loss import ElementwiseLoss, check_range, constant
from minidl.tensor import Tensor


class _Weighted(ElementwiseLoss):
    """A loss whose elements have factors, which broadcast to them."""

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.keep("weight", weight)

    def _factor(self, name: str, elements: Tensor) -> Tensor | None:
        """The option `name` for these elements; ValueError if it would make more of them."""
        factor = getattr(self, name)
        if factor is None:
            return None
        shape, sizes = elements.shape, factor.shape
        if len(sizes) > len(shape) or any(n not in (1, m) for n, m in zip(sizes[::-1], shape[::-1], strict=False)):
            raise ValueError(f"{type(self).__name__}: {name} of shape {sizes} does not broadcast to elements {shape}")
        return constant(factor, elements)

    def _weighted(self, elements: Tensor) -> Tensor:
        return elements if self.weight is None else elements * self._factor("weight", elements)


class BCELoss(_Weighted):
    """-(target log p + (1 - target) log(1 - p)) of probabilities p; logarithms are taken for no less than -100.

    weight: a factor on the elements, which broadcasts to them. ValueError if a p is not within [0, 1].
    """

    def elements(self, output, target):
        return self._weighted(ops.binary_cross_entropy(output, target))


class BCEWithLogitsLoss(_Weighted):
    """BCELoss of sigmoid(output), exact where that is 0 or 1 to the last digit.

    weight: a factor on the elements. pos_weight: a factor on the loss of the targets' part of 1; both broadcast.
    """

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean", pos_weight: Tensor | None = None):
        super().__init__(weight, reduction=reduction)
        self.keep("pos_weight", pos_weight)

    def elements(self, output, target):
        elements = _bce_with_logits(output, target, self._factor("pos_weight", output))
        return self._weighted(elements)


class FocalLoss(ElementwiseLoss):
    """-alpha_t (1 - p_t)^gamma log p_t of logits, p_t being the probability given to what the target, 0 or 1, says.

    The sigmoid form of Lin et al. 2017 ("Focal Loss for Dense Object Detection", equation 5), as
    torchvision.ops.sigmoid_focal_loss. alpha_t is alpha for targets of 1, 1 - alpha for those of 0; alpha=-1: none.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        if alpha != -1:
            check_range(self, "alpha", alpha, 0, 1)
        check_range(self, "gamma", gamma)
        self.alpha, self.gamma = alpha, gamma

    def elements(self, output, target):
        p = ops.sigmoid(output)
        missed = p * (1 - target) + (1 - p) * target  # 1 - p_t
        elements = _bce_with_logits(output, target, None) * missed**self.gamma
        if self.alpha != -1:
            elements = elements * (self.alpha * target + (1 - self.alpha) * (1 - target))
        return elements


def _bce_with_logits(logits: Tensor, target: Tensor, pos_weight: Tensor | None) -> Tensor:
    """(1 - target) x - (1 + (pos_weight - 1) target) log sigmoid(x)."""
    logarithm = ops.logsigmoid(logits)
    if pos_weight is not None:
        logarithm = logarithm * (1 + (pos_weight - 1) * target)
    return (1 - target) * logits - logarithm
