"""Losses of classes and of probabilities: shapes and costs. A transcendental function counts as 10 FLOPs."""

from minidl.kernels.meta.record import MetaArray, in_place, result

__all__ = ["binary_cross_entropy", "cross_entropy", "cross_entropy_grad", "pick", "pick_grad"]


def cross_entropy(logits, target, ignore_index):
    probabilities = MetaArray(logits.shape, logits.dtype)
    loss = result(
        "cross_entropy", (logits, target), (), logits.dtype, flops=14 * logits.size, also_written=(probabilities,),
        kind="reduction",
    )  # fmt: skip
    return loss, probabilities


def cross_entropy_grad(grad, probabilities, target, ignore_index, reuse):
    reads = grad, probabilities, target
    if not reuse:
        return result("cross_entropy_grad", reads, probabilities.shape, probabilities.dtype, 2, kind="reduction")
    in_place("cross_entropy_grad", probabilities, reads, 2 * probabilities.size, kind="reduction")
    return probabilities


def binary_cross_entropy(probability, target):
    return result("binary_cross_entropy", (probability, target), probability.shape, probability.dtype, 28)


def pick(x, target, ignore_index):
    read = target.nbytes + target.size * x.dtype.itemsize
    return result("pick", (x, target), target.shape, x.dtype, 0, read=read, kind="copy")


def pick_grad(grad, target, classes, ignore_index):
    return result("pick_grad", (grad, target), (*target.shape, classes), grad.dtype, 0, kind="copy")
