"""Losses of classes and of probabilities, row by row or element by element.

A label that is no class and a probability outside [0, 1] are refused as refusals.py says: perhaps later.
"""

import functools
import math

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous, to_numpy
from minidl.kernels.cuda.kernel_launch import THREADS, launch, over
from minidl.kernels.cuda.places import column, columns
from minidl.kernels.cuda.reduction import sum
from minidl.kernels.cuda.refusals import Check, launch_checked, refuse
from minidl.kernels.cuda.rows import across, blocks_of_rows, first_row, online, rows_at_once
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["binary_cross_entropy", "cross_entropy", "cross_entropy_grad", "pick", "pick_grad"]


# Of classes


@functools.cache
def cross_entropy_kernel(F: type):
    largest, whole, with_next = across("maximum", F), across("add", F), online(F)
    zero, lowest = F(0), F(-math.inf)

    @cuda.jit
    def cross_entropy_rows(word, number, probabilities, losses, logits, target, rows, classes, ignored):
        """One pass finds the largest logit of a row and the sum of the exponentials, one writes the probabilities."""
        rows, width, lanes = unsigned(rows), unsigned(classes), unsigned(cuda.blockDim.x)
        first, step = first_row(), rows_at_once()
        while first < rows:
            row = unsigned(first + cuda.threadIdx.y)
            start = unsigned(row * width + cuda.threadIdx.x)
            end = unsigned(row * width + width if row < rows else 0)
            at, own, total = start, lowest, zero
            while at < end:
                own, total = with_next(own, total, logits[at])
                at = unsigned(at + lanes)
            top = largest(own)
            if total != zero:
                total *= math.exp(own - top)
            total = whole(total)
            at = start
            while at < end:
                probabilities[at] = math.exp(logits[at] - top) / total
                at = unsigned(at + lanes)
            if cuda.threadIdx.x == 0 and row < rows:
                label = target[row]
                losses[row] = zero
                if label != ignored:
                    if 0 <= label < classes:
                        losses[row] = math.log(total) - (logits[unsigned(start + label)] - top)
                    else:
                        refuse(word, number, label)
            first = unsigned(first + step)

    return cross_entropy_rows


def cross_entropy(logits, target, ignore_index):
    """The sum over rows of -log softmax(logits)[target], and the probabilities.

    logits (rows, classes), target (rows,); rows whose target is `ignore_index` do not count.
    """
    logits, target = contiguous(logits), contiguous(target)
    (rows, classes), F = logits.shape, logits.dtype.type
    probabilities = CudaArray(logits.shape, F)
    losses = CudaArray((rows,), F)
    if rows:
        blocks, block, _ = blocks_of_rows(rows, classes)
        launch_checked(
            _labels_are_classes(target, classes, ignore_index), cross_entropy_kernel(F), blocks, block, probabilities,
            losses, logits, target, rows, classes, ignore_index,
        )  # fmt: skip
    return sum(losses, None, False), probabilities


def _labels_are_classes(target, classes, ignore_index) -> Check:
    def at_once():
        labels = to_numpy(target)
        labels = np.where(labels == ignore_index, 0, labels)
        return f"cross_entropy: targets lie in [{labels.min()}, {labels.max()}], the classes in [0, {classes})"

    return Check(ValueError, f"cross_entropy: a target is {{}}, the classes lie in [0, {classes})", at_once)


@functools.cache
def cross_entropy_grad_kernel(F: type):
    zero, one = F(0), F(1)

    @cuda.jit
    def cross_entropy_grad_rows(out, grad, probabilities, target, rows, classes, ignored):
        """Threads over elements; `out` may be `probabilities`."""
        rows, classes, lanes = unsigned(rows), unsigned(classes), unsigned(cuda.blockDim.x)
        row, step = unsigned(first_row() + cuda.threadIdx.y), rows_at_once()
        while row < rows:
            label, j = target[row], unsigned(cuda.threadIdx.x)
            while j < classes:
                at = unsigned(row * classes + j)
                hot = one if j == label else zero
                out[at] = (probabilities[at] - hot) * grad[0] if label != ignored else zero
                j = unsigned(j + lanes)
            row = unsigned(row + step)

    return cross_entropy_grad_rows


def cross_entropy_grad(grad, probabilities, target, ignore_index, reuse):
    """grad (scalar) times (probabilities - one-hot target), 0 in ignored rows; reuse: in place of `probabilities`."""
    probabilities = contiguous(probabilities)
    out = probabilities if reuse else CudaArray(probabilities.shape, probabilities.dtype)
    target, (rows, classes) = contiguous(target), out.shape
    if out.size:
        blocks, block, _ = blocks_of_rows(rows, classes)
        kernel = cross_entropy_grad_kernel(out.dtype.type)
        launch(kernel, blocks, block, out, grad, probabilities, target, rows, classes, ignore_index)
    return out


@functools.cache
def pick_kernel(F: type):
    zero = F(0)

    @cuda.jit
    def pick_elements(word, number, out, x, target, rows, classes, ignored):
        """One thread a row."""
        rows, width = unsigned(rows), unsigned(classes)
        row, step = column(), columns()
        while row < rows:
            label = target[row]
            out[row] = zero
            if label != ignored:
                if 0 <= label < classes:
                    out[row] = x[unsigned(row * width + unsigned(label))]
                else:
                    refuse(word, number, label)
            row = unsigned(row + step)

    return pick_elements


@functools.cache
def pick_grad_kernel(F: type):
    zero = F(0)

    @cuda.jit
    def pick_grad_rows(word, number, out, grad, target, rows, classes, ignored):
        """Threads over the elements of `out`."""
        rows, width, lanes = unsigned(rows), unsigned(classes), unsigned(cuda.blockDim.x)
        row, step = unsigned(first_row() + cuda.threadIdx.y), rows_at_once()
        while row < rows:
            label, j = target[row], unsigned(cuda.threadIdx.x)
            if j == 0 and label != ignored and not 0 <= label < classes:
                refuse(word, number, label)
            while j < width:
                out[unsigned(row * width + j)] = grad[row] if j == label and label != ignored else zero
                j = unsigned(j + lanes)
            row = unsigned(row + step)

    return pick_grad_rows


def pick(x, target, ignore_index):
    """x (rows, classes), target (rows,) -> x[row, target[row]] (rows,), 0 where the target is `ignore_index`."""
    x, target = contiguous(x), contiguous(target)
    rows, classes = x.shape
    out = CudaArray((rows,), x.dtype)
    if rows:
        check, kernel = _labels_are_classes(target, classes, ignore_index), pick_kernel(x.dtype.type)
        launch_checked(check, kernel, over(rows), THREADS, out, x, target, rows, classes, ignore_index)
    return out


def pick_grad(grad, target, classes, ignore_index):
    """grad (rows,) -> (rows, classes): each row's grad at its target, 0 elsewhere and where it is `ignore_index`."""
    grad, target, rows = contiguous(grad), contiguous(target), target.shape[0]
    out = CudaArray((rows, classes), grad.dtype)
    if rows:
        blocks, block, _ = blocks_of_rows(rows, classes)
        check, kernel = _labels_are_classes(target, classes, ignore_index), pick_grad_kernel(grad.dtype.type)
        launch_checked(check, kernel, blocks, block, out, grad, target, rows, classes, ignore_index)
    return out


# Of probabilities


@functools.cache
def binary_cross_entropy_kernel(F: type):
    zero, one, least = F(0), F(1), F(-100)

    @cuda.jit
    def binary_cross_entropy_elements(word, number, out, probability, target, count):
        """One thread an element."""
        count, i, step = unsigned(count), column(), columns()
        while i < count:
            p, t = probability[i], target[i]
            if not (zero <= p <= one and zero <= t <= one):
                refuse(word, number, 0)
            yes, no = math.log(p), math.log1p(-p)
            out[i] = (t - one) * (no if no > least else least) - t * (yes if yes > least else least)
            i = unsigned(i + step)

    return binary_cross_entropy_elements


def binary_cross_entropy(probability, target):
    """-(target log p + (1 - target) log(1 - p)), no logarithm below -100.

    ValueError if a p or a target is not within [0, 1].
    """
    probability, target = contiguous(probability), contiguous(target)
    out = CudaArray(probability.shape, probability.dtype)

    def at_once():
        what, x = "probabilities", to_numpy(probability)
        if x.min() >= 0 and x.max() <= 1:
            what, x = "targets", to_numpy(target)
        return f"binary_cross_entropy: {what} lie in [{x.min()}, {x.max()}], they must be in [0, 1]"

    if out.size:
        late = "binary_cross_entropy: a probability or a target is outside [0, 1]"
        kernel = binary_cross_entropy_kernel(out.dtype.type)
        launch_checked(
            Check(ValueError, late, at_once), kernel, over(out.size), THREADS, out, probability, target, out.size
        )
    return out
