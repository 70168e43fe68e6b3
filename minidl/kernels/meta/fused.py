"""Layers that are one kernel: shapes and costs. A transcendental function counts as 10 FLOPs."""

import math

from minidl.kernels.algorithms import is_compiled
from minidl.kernels.meta.arrays import copy
from minidl.kernels.meta.record import MetaArray, elementwise_strides, in_place, result

__all__ = [
    "attention_weights", "attention_weights_grad", "dropout", "dropout_grad",
    "embedding", "embedding_grad", "gelu", "gelu_grad", "log_softmax", "log_softmax_grad", "softmax", "softmax_grad",
]  # fmt: skip


def _elementwise(name, arrays, flops, kind="elementwise"):
    shape, dtype = arrays[0].shape, arrays[0].dtype
    return result(name, arrays, shape, dtype, flops, strides=elementwise_strides(arrays, shape), kind=kind)


def softmax(x, dim):
    return _elementwise("softmax", (x,), 14, "normalisation")


def softmax_grad(grad, y, dim):
    return _elementwise("softmax_grad", (grad, y), 4, "normalisation")


def log_softmax(x, dim):
    return _elementwise("log_softmax", (x,), 14, "normalisation")


def log_softmax_grad(grad, y, dim):
    return _elementwise("log_softmax_grad", (grad, y), 13, "normalisation")


def attention_weights(scores, scale, is_causal):
    scores = scores if scores.contiguous else copy(scores)
    in_place("attention_weights", scores, (scores,), 15 * scores.size, kind="normalisation")
    return scores


def attention_weights_grad(grad, weights, scale):
    grad = grad if grad.contiguous else copy(grad)
    in_place("attention_weights_grad", grad, (grad, weights), 5 * grad.size, kind="normalisation")
    return grad


def gelu(x, approximate):
    strides = elementwise_strides((x,), x.shape) if is_compiled(x.size, x.dtype) else None
    return result("gelu", (x,), x.shape, x.dtype, 16, strides=strides)


def gelu_grad(grad, x, approximate):
    strides = elementwise_strides((grad, x), x.shape) if is_compiled(x.size, x.dtype) else None
    return result("gelu_grad", (grad, x), x.shape, x.dtype, 24, strides=strides)


def dropout(x, p):
    mask = MetaArray(x.shape, bool)
    strides = elementwise_strides((x, mask), x.shape)
    return result("dropout", (x,), x.shape, x.dtype, 8, also_written=(mask,), strides=strides), mask


def dropout_grad(grad, mask, p):
    return _elementwise("dropout_grad", (grad, mask), 2)


def embedding(weight, indices):
    shape = (*indices.shape, weight.shape[1])
    read = indices.nbytes + math.prod(shape) * weight.dtype.itemsize
    return result("embedding", (weight, indices), shape, weight.dtype, 0, read=read, kind="copy")


def embedding_grad(grad, indices, rows):
    return result(
        "embedding_grad", (grad, indices), (rows, grad.shape[-1]), grad.dtype, flops=grad.size, kind="reduction"
    )
