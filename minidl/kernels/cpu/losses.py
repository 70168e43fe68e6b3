"""Losses of probabilities, element by element or row by row."""

import numpy as np

__all__ = ["binary_cross_entropy", "pick", "pick_grad"]


def binary_cross_entropy(probability, target):
    """-(target log p + (1 - target) log(1 - p)), no logarithm below -100; ValueError if a p is not within [0, 1]."""
    p = probability
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"binary_cross_entropy: probabilities lie in [{p.min()}, {p.max()}], they must be in [0, 1]")
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
