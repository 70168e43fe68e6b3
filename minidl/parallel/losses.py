"""Losses of outputs whose classes are split over ranks, as a vocabulary is: no rank ever holds the whole logits.

Shoeybi et al. 2019, section 3: the ranks communicate a few numbers for each row, and not the row.
"""

from __future__ import annotations

from collections.abc import Sequence

from minidl import ops
from minidl.nn.containers import Sequential
from minidl.nn.losses import Loss
from minidl.nn.module import Module
from minidl.ops.losses import IGNORE_INDEX, rows_of
from minidl.parallel.conjugates import CollectiveOp
from minidl.parallel.group import ProcessGroup
from minidl.tensor import Tensor


class SplitCrossEntropy(CollectiveOp):
    """The sum over rows of -log softmax(logits)[target], of this rank's classes (rows, classes / size) of the logits.

    Rank r has the classes from r * classes / size on. Two all-reduces: the largest logit of each row; then the sum of
    its exponentials, and the logit of its target, which one rank has.
    """

    one_dtype = False

    def __init__(self, group: ProcessGroup, ignore_index: int):
        super().__init__(group)
        self.ignore_index = ignore_index

    def forward(self, logits, target):  # (rows, classes / size), (rows,)
        k, (rows, classes) = self.kernels, logits.shape
        kept = k.not_equal(target, self.ignore_index)
        k.check_indices("cross_entropy", k.where(kept, target, 0), classes * self.group.size)
        largest = self.group.all_reduce(k.max(logits, 1, True), "max")  # (rows, 1)
        lower = k.subtract(logits, largest)
        local = k.subtract(target, self.group.rank * classes)
        here = k.logical_and(kept, k.logical_and(k.greater_equal(local, 0), k.less(local, classes)))
        local = k.where(here, local, IGNORE_INDEX)
        chosen = k.reshape(k.pick(lower, local, IGNORE_INDEX), (rows, 1))
        exponentials = k.exp(lower)
        both = self.group.all_reduce(k.concatenate([k.sum(exponentials, 1, True), chosen], 1))  # (rows, 2)
        total, chosen = (k.index(both, (slice(None), slice(i, i + 1))) for i in range(2))
        losses = k.masked(k.subtract(k.log(total), chosen), k.reshape(kept, (rows, 1)))
        if self.needs[0]:
            self.probabilities, self.kept_rows, self.local = k.divide(exponentials, total), kept, local
        return k.sum(losses, None, False)

    def backward(self, grad):
        k, (rows, classes) = self.kernels, self.probabilities.shape
        each = k.multiply(k.cast(self.kept_rows, grad.dtype), grad)  # (rows,)
        of_all = k.multiply(self.probabilities, k.reshape(each, (rows, 1)))
        return k.subtract(of_all, k.pick_grad(each, self.local, classes, IGNORE_INDEX)), None


class SplitClasses:
    """How a loss is taken, and answers are found, of outputs (..., classes / size) whose classes are split."""

    def __init__(self, group: ProcessGroup):
        self.group = group

    def cross_entropy_sum(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """As `ops.cross_entropy_sum` of the whole logits."""
        return SplitCrossEntropy(self.group, ignore_index)(*rows_of("cross_entropy", logits, target))

    def argmax(self, logits: Tensor) -> Tensor:
        """The class of the largest logit of all ranks, the first of several: (...)."""
        classes, group = logits.shape[-1], self.group
        own, place = logits.amax(-1), logits.argmax(-1) + group.rank * classes
        largest = group.all_reduce(own.clone(), "max")
        return group.all_reduce(ops.where(own == largest, place, classes * group.size), "min")

    def __str__(self) -> str:
        return str(self.group)


def loss_of_output(loss: Loss, chain: Sequence[Module]) -> Loss:
    """`loss` as it is taken of what a chain of blocks makes: over the `class_group` of its last layer, if it has one.

    ValueError for a loss that needs all classes.
    """
    last = chain[-1] if chain else None
    while isinstance(last, Sequential) and len(last):
        last = last[-1]
    group = getattr(last, "class_group", None)
    return loss if group is None else loss.over_classes(SplitClasses(group))
