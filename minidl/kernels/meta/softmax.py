"""Softmax, its logarithm, and attention weights: shapes and costs. A transcendental function counts as 10 FLOPs."""

from minidl.kernels.meta.arrays import copy
from minidl.kernels.meta.elementwise import twin
from minidl.kernels.meta.record import in_place

__all__ = [
    "attention_weights", "attention_weights_grad", "log_softmax", "log_softmax_grad", "softmax", "softmax_grad",
]  # fmt: skip

softmax = twin("softmax", 14, kind="normalisation")
softmax_grad = twin("softmax_grad", 4, kind="normalisation")
log_softmax = twin("log_softmax", 14, kind="normalisation")
log_softmax_grad = twin("log_softmax_grad", 13, kind="normalisation")


def attention_weights(scores, scale, is_causal, window=None):
    scores = scores if scores.contiguous else copy(scores)
    in_place("attention_weights", scores, (scores,), 15 * scores.size, kind="normalisation")
    return scores


def attention_weights_grad(grad, weights, scale):
    grad = grad if grad.contiguous else copy(grad)
    in_place("attention_weights_grad", grad, (grad, weights), 5 * grad.size, kind="normalisation")
    return grad
