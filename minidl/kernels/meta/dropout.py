"""Dropout: shapes and costs. To draw an element of the mask counts as 6 FLOPs."""

from minidl.kernels.meta.elementwise import twin
from minidl.kernels.meta.record import MetaArray, elementwise_strides, result

__all__ = ["dropout", "dropout_grad"]


def dropout(x, p):
    mask = MetaArray(x.shape, bool)
    strides = elementwise_strides((x, mask), x.shape)
    return result("dropout", (x,), x.shape, x.dtype, 8, also_written=(mask,), strides=strides), mask


dropout_grad = twin("dropout_grad", 2)
