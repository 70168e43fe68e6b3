"""Metrics of classification: functions of one batch, and objects that gather many.

Each takes an output and a target, tensors or arrays: scores (..., classes), of which the largest is the answer, or the
answers (...) themselves; and targets (...), class indices from 0. Targets equal to `ignore_index` do not count, as in
nn.CrossEntropyLoss.

    accuracy = metrics.Accuracy()
    for x, y in loader:
        accuracy.update(model(x), y)
    accuracy.compute()                      # over all of them; accuracy.reset() starts anew

A ratio of nothing follows scikit-learn: precision, recall and F1 are `zero_division` (0) where they divide by 0. The
average "macro" is over the classes that occur among answers or targets. Other metrics of no targets are nan.
"""

import math

import numpy as np

from minidl.creation import tensor
from minidl.grad_mode import no_grad
from minidl.nn.losses import CrossEntropyLoss
from minidl.ops.losses import IGNORE_INDEX

AVERAGES = ("binary", "macro", "micro", "weighted", None)


class Metric:
    """What is gathered over batches: `update(output, target)`, `compute()`, `reset()`."""

    def __init__(self, ignore_index: int = IGNORE_INDEX):
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no reset")

    def update(self, output, target) -> None:
        """Take in one batch. ValueError: the shapes do not match, or a label is no class."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def compute(self):
        raise NotImplementedError(f"{type(self).__name__} has no compute")


class Accuracy(Metric):
    """The share of targets that are among the `top_k` largest scores; of equal scores the first leads."""

    def __init__(self, top_k: int = 1, ignore_index: int = IGNORE_INDEX):
        if top_k < 1:
            raise ValueError(f"Accuracy: top_k={top_k}, it must be at least 1")
        self.top_k = top_k
        super().__init__(ignore_index)

    def reset(self) -> None:
        self.right = self.count = 0

    def update(self, output, target) -> None:
        output, target = np.asarray(output), np.asarray(target)
        if self.top_k == 1:
            answers, labels = _labels(output, target, self.ignore_index)
            right = answers == labels
        else:
            right = self._among_the_largest(output, target)
        self.right, self.count = self.right + int(right.sum()), self.count + right.size

    def _among_the_largest(self, scores: np.ndarray, target: np.ndarray) -> np.ndarray:
        if scores.shape[:-1] != target.shape or self.top_k > scores.shape[-1]:
            raise ValueError(
                f"Accuracy: top_k={self.top_k} of targets {target.shape} needs scores {target.shape} + (classes,), of "
                f"at least {self.top_k} classes, not {scores.shape}"
            )
        kept = target != self.ignore_index
        scores, labels = scores[kept], _check_labels("target", target[kept], scores.shape[-1])
        own = np.take_along_axis(scores, labels[:, None], 1)  # (rows, 1)
        first = np.arange(scores.shape[1]) < labels[:, None]
        ahead = ((scores > own) | (scores == own) & first).sum(1)
        return (ahead < self.top_k) & (own == own)[:, 0]  # a score that is not a number is wrong

    def compute(self) -> float:
        return self.right / self.count if self.count else math.nan


class ConfusionMatrix(Metric):
    """How often each class (row) got each answer (column), of int64; `classes` of them, or as many as occur."""

    def __init__(self, classes: int | None = None, ignore_index: int = IGNORE_INDEX):
        self.classes = classes
        super().__init__(ignore_index)

    def reset(self) -> None:
        self.matrix = np.zeros((self.classes or 0,) * 2, np.int64)

    def update(self, output, target) -> None:
        output, target = np.asarray(output), np.asarray(target)
        answers, labels = _labels(output, target, self.ignore_index)
        for what, values in (("output", answers), ("target", labels)):
            _check_labels(what, values, self.classes)
        found = max(len(self.matrix), answers.max(initial=-1) + 1, labels.max(initial=-1) + 1)
        if self.classes is None and output.ndim > target.ndim:
            found = max(found, output.shape[-1])
        self.matrix = np.pad(self.matrix, (0, found - len(self.matrix)))
        self.matrix += np.bincount(labels * found + answers, minlength=found**2).reshape(found, found)

    def compute(self) -> np.ndarray:
        return self.matrix.copy()


class ClassRatio(ConfusionMatrix):
    """A ratio of counts for each class, averaged.

    average: "binary", that of class 1, of two classes; "macro", the mean of the classes that occur; "weighted", their
    mean weighted by how often they are the target; "micro", of the counts summed over the classes; None, an array of
    all. zero_division: the ratio of 0 to 0; nan leaves the class out of averages.
    """

    def __init__(
        self,
        average: str | None = "binary",
        classes: int | None = None,
        zero_division: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ):
        if average not in AVERAGES:
            raise ValueError(f"{type(self).__name__}: average={average!r}, it must be one of {AVERAGES}")
        self.average, self.zero_division = average, zero_division
        super().__init__(classes, ignore_index)

    def ratio(self, hits: np.ndarray, answers: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numerator and denominator, of the numbers of right answers, of answers and of targets of each class."""
        raise NotImplementedError

    def compute(self) -> float | np.ndarray:
        counts = self.matrix.diagonal(), self.matrix.sum(0), self.matrix.sum(1)
        if self.average == "micro":
            counts = tuple(np.atleast_1d(count.sum()) for count in counts)
        elif self.average == "binary":
            if len(self.matrix) > 2:
                raise ValueError(
                    f'{type(self).__name__}: average="binary" is of two classes, these are {len(self.matrix)}: '
                    'choose "macro", "micro", "weighted" or None'
                )
            counts = tuple(np.pad(count, (0, 2 - len(count)))[1:] for count in counts)
        above, below = self.ratio(*counts)
        ratios = np.divide(above, below, out=np.full(len(below), float(self.zero_division)), where=below > 0)
        if self.average is None:
            return ratios
        if self.average in ("binary", "micro"):
            return float(ratios[0])
        _, answers, targets = counts
        counted = (answers + targets > 0) & ~np.isnan(ratios)
        if not counted.any():
            return float(self.zero_division)
        weighted = self.average == "weighted" and targets[counted].any()
        return float(np.average(ratios[counted], weights=targets[counted] if weighted else None))


class Precision(ClassRatio):
    """Of the answers that name a class, the share that is right. Options: see ClassRatio."""

    def ratio(self, hits, answers, targets):
        return hits, answers


class Recall(ClassRatio):
    """Of the targets of a class, the share that is found. Options: see ClassRatio."""

    def ratio(self, hits, answers, targets):
        return hits, targets


class F1(ClassRatio):
    """The harmonic mean of precision and recall: 2 hits / (answers + targets). Options: see ClassRatio."""

    def ratio(self, hits, answers, targets):
        return 2 * hits, answers + targets


class Perplexity(Metric):
    """e to the mean cross-entropy of scores (..., classes): of how many classes an even guess would be as unsure."""

    def reset(self) -> None:
        self.total = self.count = 0.0

    def update(self, output, target) -> None:
        with no_grad():
            total, count = CrossEntropyLoss(ignore_index=self.ignore_index).sum_and_weight(
                tensor(output), tensor(target)
            )
        self.total, self.count = self.total + float(total), self.count + float(count)

    def compute(self) -> float:
        with np.errstate(over="ignore"):
            return float(np.exp(self.total / self.count)) if self.count else math.nan


def _labels(output: np.ndarray, target: np.ndarray, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The answers and the labels that count: (rows,), (rows,)."""
    answers = output.argmax(-1) if output.ndim == target.ndim + 1 and output.shape[-1] else output
    if answers.shape != target.shape:
        raise ValueError(
            f"targets of shape {target.shape} need as many answers, or scores {target.shape} + (classes,), "
            f"not {output.shape}"
        )
    if answers.dtype.kind not in "iub" or target.dtype.kind not in "iub":
        raise TypeError(
            f"answers and targets are class indices, not {answers.dtype} and {target.dtype}: "
            "compare a probability with a threshold (p > 0.5)"
        )
    kept = target != ignore_index
    return answers[kept].astype(np.int64), target[kept].astype(np.int64)


def _check_labels(what: str, labels: np.ndarray, classes: int | None) -> np.ndarray:
    """ValueError unless each of `labels` is a class."""
    if labels.size and (labels.min() < 0 or classes is not None and labels.max() >= classes):
        wanted = "at least 0" if classes is None else f"in [0, {classes})"
        raise ValueError(f"the classes of the {what} lie in [{labels.min()}, {labels.max()}], they must be {wanted}")
    return labels


def _of_one_batch(metric: Metric, output, target):
    metric.update(output, target)
    return metric.compute()


def accuracy(output, target, top_k: int = 1, ignore_index: int = IGNORE_INDEX) -> float:
    """See Accuracy."""
    return _of_one_batch(Accuracy(top_k, ignore_index), output, target)


def confusion_matrix(output, target, classes: int | None = None, ignore_index: int = IGNORE_INDEX) -> np.ndarray:
    """See ConfusionMatrix."""
    return _of_one_batch(ConfusionMatrix(classes, ignore_index), output, target)


def precision(output, target, average: str | None = "binary", zero_division: float = 0.0) -> float | np.ndarray:
    """See Precision."""
    return _of_one_batch(Precision(average, zero_division=zero_division), output, target)


def recall(output, target, average: str | None = "binary", zero_division: float = 0.0) -> float | np.ndarray:
    """See Recall."""
    return _of_one_batch(Recall(average, zero_division=zero_division), output, target)


def f1(output, target, average: str | None = "binary", zero_division: float = 0.0) -> float | np.ndarray:
    """See F1."""
    return _of_one_batch(F1(average, zero_division=zero_division), output, target)


def perplexity(output, target, ignore_index: int = IGNORE_INDEX) -> float:
    """See Perplexity."""
    return _of_one_batch(Perplexity(ignore_index), output, target)
