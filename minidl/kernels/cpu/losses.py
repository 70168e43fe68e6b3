"""Losses of classes and of probabilities, row by row or element by element."""

import numpy as np

from minidl.kernels.cpu import fast

__all__ = ["binary_cross_entropy", "cross_entropy", "cross_entropy_grad", "pick", "pick_grad"]


def cross_entropy(logits, target, ignore_index):
    """The sum over rows of -log softmax(logits)[target], an array of shape (), and the probabilities (rows, classes).

    logits (rows, classes), target (rows,) of int64; rows whose target is `ignore_index` do not count. ValueError: a
    target is no class.
    """
    kept, target = kept_labels(target, logits.shape[1], ignore_index)
    if fast.use_compiled(logits):
        losses, probabilities = fast.losses.cross_entropy(logits, target)
    else:
        shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
        probabilities = np.exp(shifted)
        total = probabilities.sum(axis=1, keepdims=True)  # (rows, 1)
        losses = np.log(total[:, 0]) - shifted[np.arange(len(target)), target]  # (rows,)
        probabilities /= total
    return np.array(losses.sum(dtype=np.float64, where=kept), logits.dtype), probabilities


def cross_entropy_grad(grad, probabilities, target, ignore_index, reuse):
    """grad (scalar) times (probabilities - one-hot target), 0 in ignored rows; reuse: in place of `probabilities`."""
    out = probabilities if reuse else probabilities.copy()
    kept = target != ignore_index
    if fast.use_compiled(out):
        return fast.losses.cross_entropy_grad(grad, out, target, kept)
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
