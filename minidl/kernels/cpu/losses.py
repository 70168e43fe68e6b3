"""Losses of classes and of probabilities, row by row or element by element."""

import numpy as np

from minidl.kernels.cpu.blocks import compiled_losses, row_blocks, thread_rows, use_compiled
from minidl.kernels.cpu.threads import split

__all__ = ["binary_cross_entropy", "cross_entropy", "cross_entropy_grad", "pick", "pick_grad"]

THREAD = 1 << 16  # elements that are worth a thread of their own


def cross_entropy(logits, target, ignore_index):
    """The sum over rows of -log softmax(logits)[target], and the probabilities.

    logits (rows, classes), target (rows,); rows whose target is `ignore_index` do not count.
    """
    rows, classes = logits.shape
    kept, target = kept_labels(target, classes, ignore_index)
    probabilities, losses = np.empty(logits.shape, logits.dtype), np.empty(rows, logits.dtype)
    if use_compiled(logits):
        kernel = compiled_losses().cross_entropy
        logits, target = np.ascontiguousarray(logits), np.ascontiguousarray(target)
        split(
            rows,
            lambda part: kernel(logits[part], target[part], probabilities[part], losses[part]),
            thread_rows(classes, THREAD),
        )
    else:
        for part in row_blocks(rows, classes):
            p, t = probabilities[part], target[part]
            np.subtract(logits[part], logits[part].max(axis=1, keepdims=True), out=p)
            chosen = p[np.arange(len(t)), t]
            np.exp(p, out=p)
            total = p.sum(axis=1)
            np.subtract(np.log(total), chosen, out=losses[part])
            p /= total[:, None]
    return np.array(losses.sum(dtype=np.float64, where=kept), logits.dtype), probabilities


def cross_entropy_grad(grad, probabilities, target, ignore_index, reuse):
    """grad (scalar) times (probabilities - one-hot target), 0 in ignored rows; reuse: in place of `probabilities`."""
    out = probabilities if reuse else probabilities.copy()
    kept = target != ignore_index
    if use_compiled(out):
        scale, kernel = np.float32(grad), compiled_losses().cross_entropy_grad
        split(
            len(out), lambda part: kernel(scale, out[part], target[part], kept[part]), thread_rows(out.shape[1], THREAD)
        )
        return out
    rows = np.flatnonzero(kept)
    out[rows, target[rows]] -= 1
    out *= grad
    if len(rows) < len(target):
        out[~kept] = 0  # also where grad is infinite: the mean of nothing
    return out


def binary_cross_entropy(probability, target):
    """-(target log p + (1 - target) log(1 - p)), no logarithm below -100.

    ValueError if a p or a target is not within [0, 1].
    """
    p = probability
    for what, x in (("probabilities", p), ("targets", target)):
        if x.size and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(f"binary_cross_entropy: {what} lie in [{x.min()}, {x.max()}], they must be in [0, 1]")
    with np.errstate(divide="ignore"):
        yes, no = np.log(p), np.log1p(-p)
    return np.asarray((target - 1) * np.maximum(no, -100) - target * np.maximum(yes, -100))


def pick(x, target, ignore_index):
    """x (rows, classes), target (rows,) -> x[row, target[row]] (rows,), 0 where the target is `ignore_index`."""
    kept, safe = kept_labels(target, x.shape[1], ignore_index)
    picked = x[np.arange(len(x)), safe]
    picked[~kept] = 0
    return picked


def pick_grad(grad, target, classes, ignore_index):
    """grad (rows,) -> (rows, classes): each row's grad at its target, 0 elsewhere and where it is `ignore_index`."""
    kept, safe = kept_labels(target, classes, ignore_index)
    out = np.zeros((len(target), classes), grad.dtype)
    rows = np.flatnonzero(kept)
    out[rows, safe[rows]] = grad[rows]
    return out


def kept_labels(target, classes: int, ignore_index: int):
    """Which labels are not `ignore_index`, and the labels with 0 for the others; ValueError: one is no class."""
    kept = target != ignore_index
    safe = target if kept.all() else np.where(kept, target, 0)
    if safe.size and not 0 <= safe.min() <= safe.max() < classes:
        raise ValueError(f"cross_entropy: targets lie in [{safe.min()}, {safe.max()}], the classes in [0, {classes})")
    return kept, safe
