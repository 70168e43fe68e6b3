"""Losses of classes: one of many, given by its index or by a distribution.

PyTorch has the classes second, in (batch, classes, d1, …). Here they come last by default, as language models have
them; `dim=1` takes PyTorch's layout. For (batch, classes) both are the same.
"""

from copy import copy

from minidl import ops
from minidl.nn.losses.loss import ElementwiseLoss, Loss, check_range, constant
from minidl.ops.losses import IGNORE_INDEX
from minidl.tensor import Tensor


class NLLLoss(Loss):
    """-weight[target] output[target], of log-probabilities (..., classes) and targets (...) of int64.

    weight: of each class (classes,), 1 if None. ignore_index: a target that does not count. dim: where the classes are;
    PyTorch's layout is dim=1. Weight: that of the targets' classes, summed. ValueError: shapes do not match, or a
    target is no class.
    """

    split = None  # how the loss is taken where the classes are split over ranks

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
        dim: int = -1,
    ):
        super().__init__(reduction=reduction)
        self.keep("weight", weight)
        self.ignore_index, self.dim = ignore_index, dim

    def elements_and_weight(self, output, target):
        return self._picked(self._classes_last(output, target), target)

    def right_answers(self, output, target):
        if target.dtype.kind != "i":
            return 0.0, 0.0
        kept = target != self.ignore_index
        output = self._classes_last(output, target)
        found = self.split.argmax(output) if self.split else output.argmax(-1)
        return ops.logical_and(found == target, kept).sum(), kept.sum()

    def _picked(self, log_probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """-log p[target] times the weight of the target's class, and the sum of these weights."""
        elements = -ops.pick(log_probabilities, target, self.ignore_index)
        weights = self._target_weights(log_probabilities, target)
        return (elements if self.weight is None else elements * weights), weights.sum()

    def _target_weights(self, output: Tensor, target: Tensor) -> Tensor:
        """The weight of each target's class, 0 for one that does not count: (...)."""
        kept = target != self.ignore_index
        weights = kept.to(output.dtype)
        if self.weight is not None:
            weights = weights * self._class_weights(output)[ops.where(kept, target, 0)]
        return weights

    def _class_weights(self, output: Tensor) -> Tensor:
        classes = output.shape[-1]
        if self.weight.shape != (classes,):
            raise ValueError(
                f"{type(self).__name__}: weight has shape {self.weight.shape}, one number a class is ({classes},)"
            )
        return constant(self.weight, output)

    def _classes_last(self, output: Tensor, target: Tensor, distributions: bool = False) -> Tensor:
        """output with the classes as its last dimension; ValueError if it does not match the target."""

        def without(dim: int) -> tuple[int, ...]:
            return output.shape[:dim] + output.shape[dim + 1 :]

        if not -output.ndim <= self.dim < output.ndim:
            raise IndexError(f"{type(self).__name__}: an output of shape {output.shape} has no dim={self.dim}")
        dim = self.dim % output.ndim
        if not distributions and target.shape != without(dim):
            fits = output.ndim > 2 and target.shape == without(1)
            raise ValueError(
                f"{type(self).__name__}: an output of shape {output.shape} with its classes in dimension {dim} needs "
                f"targets {without(dim)}, not {target.shape}"
                + ("; the classes are in dimension 1, as in PyTorch: say dim=1" if fits else "")
            )
        return output.permute([d for d in range(output.ndim) if d != dim] + [dim]) if dim < output.ndim - 1 else output

    def extra_repr(self):
        defaults = {"ignore_index": IGNORE_INDEX, "dim": -1, "reduction": "mean"}
        return ", ".join(f"{k}={getattr(self, k)!r}" for k, v in defaults.items() if getattr(self, k) != v)


class CrossEntropyLoss(NLLLoss):
    """-log softmax(output)[target], of scores (..., classes) and targets (...) of int64.

    A target of floats, (..., classes), is a distribution for each: the loss is -sum(target * log softmax(output)).
    label_smoothing: the part of a target that is spread evenly over all classes (Szegedy et al. 2016, section 7).
    weight, ignore_index, dim: as in NLLLoss, but a distribution has no index to ignore. Weight: that of the targets'
    classes, summed; one a distribution. Labels without class weights and smoothing take one kernel, which keeps one
    array of the output's size for backward.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        dim: int = -1,
    ):
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction, dim=dim)
        check_range(self, "label_smoothing", label_smoothing, 0, 1)
        self.label_smoothing = label_smoothing

    def over_classes(self, split):
        own = type(self).sum_and_weight is not CrossEntropyLoss.sum_and_weight  # which may look at whole outputs
        if own or self.weight is not None or self.label_smoothing or self.dim != -1:
            return super().over_classes(split)
        return self.split_over(split)

    def split_over(self, split) -> "CrossEntropyLoss":
        """A copy that is taken of split classes; for a subclass that knows how to."""
        loss = copy(self)
        loss.split = split
        return loss

    def sum_and_weight(self, output, target):
        if self.split and target.dtype.kind == "f":
            return super().over_classes(self.split)
        if target.dtype.kind == "f" or self.weight is not None or self.label_smoothing:
            return super().sum_and_weight(output, target)
        output = self._classes_last(output, target)
        weight = self._target_weights(output, target).sum()
        cross_entropy_sum = (self.split or ops).cross_entropy_sum
        return cross_entropy_sum(output, target, self.ignore_index), weight

    def elements_and_weight(self, output, target):
        if target.dtype.kind == "f":
            return self._of_distributions(output, target)
        log_probabilities = ops.log_softmax(self._classes_last(output, target), -1)
        elements, weight = self._picked(log_probabilities, target)
        if self.label_smoothing:
            if self.weight is not None:
                log_probabilities = log_probabilities * self._class_weights(log_probabilities)
            spread = ops.where(target != self.ignore_index, -log_probabilities.mean(-1), 0.0)
            elements = elements * (1 - self.label_smoothing) + spread * self.label_smoothing
        return elements, weight

    def _of_distributions(self, output: Tensor, target: Tensor) -> tuple[Tensor, float]:
        if target.shape != output.shape:
            raise ValueError(
                f"CrossEntropyLoss: a target of floats gives each class its part, and has the shape of the output, "
                f"{output.shape}, not {target.shape}; labels are integers (int64)"
            )
        if self.ignore_index >= 0:
            raise ValueError(f"CrossEntropyLoss: ignore_index={self.ignore_index}, but targets of floats have no index")
        output = self._classes_last(output, target, distributions=True)
        target = self._classes_last(target, target, distributions=True)
        classes = output.shape[-1]
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        if self.weight is not None:
            target = target * self._class_weights(output)
        elements = -(target * ops.log_softmax(output, -1)).sum(-1)
        return elements, float(elements.numel())

    def extra_repr(self):
        smoothing = [f"label_smoothing={self.label_smoothing}"] if self.label_smoothing else []
        return ", ".join([*filter(None, [super().extra_repr()]), *smoothing])


class KLDivLoss(ElementwiseLoss):
    """target (log target - output), elementwise: the divergence of the target from an output of log-probabilities.

    target: probabilities, or their logarithms with log_target. The reduction "batchmean" is the one that gives the
    divergence of each sample, averaged: its weight is the size of the first dimension, that of "mean" one an element.
    """

    reductions = ("mean", "batchmean", "sum", "none")

    def __init__(self, *, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction=reduction)
        self.log_target = log_target

    def elements(self, output, target):
        if self.log_target:
            return ops.exp(target) * (target - output)
        logarithm = ops.log(ops.where(target == 0, 1.0, target))  # 0 log 0 is 0
        return target * logarithm - target * output

    def elements_and_weight(self, output, target):
        elements, weight = super().elements_and_weight(output, target)
        if self.reduction == "batchmean":
            weight = float(output.shape[0] if output.ndim else 1)
        return elements, weight
