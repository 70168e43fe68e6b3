"""Layers that are one kernel: shapes and costs. A transcendental function counts as 10 FLOPs."""

import math

from minidl.kernels.meta.record import MetaArray, in_place, result

__all__ = [
    "attention_weights", "attention_weights_grad", "dropout", "dropout_grad",
    "embedding", "embedding_grad", "gelu", "gelu_grad", "log_softmax", "log_softmax_grad", "softmax", "softmax_grad",
]  # fmt: skip


def softmax(x, dim):
    return result("softmax", (x,), x.shape, x.dtype, 14)


def softmax_grad(grad, y, dim):
    return result("softmax_grad", (grad, y), y.shape, y.dtype, 4)


def log_softmax(x, dim):
    return result("log_softmax", (x,), x.shape, x.dtype, 14)


def log_softmax_grad(grad, y, dim):
    return result("log_softmax_grad", (grad, y), y.shape, y.dtype, 13)


def attention_weights(scores, scale, is_causal):
    in_place("attention_weights", scores, (scores,), 15 * scores.size)
    return scores


def attention_weights_grad(grad, weights, scale):
    in_place("attention_weights_grad", grad, (grad, weights), 5 * grad.size)
    return grad


def gelu(x, approximate):
    return result("gelu", (x,), x.shape, x.dtype, 16)


def gelu_grad(grad, x, approximate):
    return result("gelu_grad", (grad, x), x.shape, x.dtype, 24)


def dropout(x, p):
    mask = MetaArray(x.shape, bool)
    return result("dropout", (x,), x.shape, x.dtype, 8, also_written=(mask,)), mask


def dropout_grad(grad, mask, p):
    return result("dropout_grad", (grad, mask), grad.shape, grad.dtype, 2)


def embedding(weight, indices):
    shape = (*indices.shape, weight.shape[1])
    read = indices.nbytes + math.prod(shape) * weight.dtype.itemsize
    return result("embedding", (weight, indices), shape, weight.dtype, 0, read=read)


def embedding_grad(grad, indices, rows):
    return result("embedding_grad", (grad, indices), (rows, grad.shape[-1]), grad.dtype, flops=grad.size)
