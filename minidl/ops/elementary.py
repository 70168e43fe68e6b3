"""The elementary kernels on tensors: what most backwards are written in, so that they can be differentiated again."""

from minidl.double_backward import tensor_kernel
from minidl.ops import arithmetic, choice, comparison, elementwise, extremes, joining, reduction, shape
from minidl.ops.indexing import Index
from minidl.ops.matmul import MatMul, linear

for _function in (
    arithmetic.add, arithmetic.subtract, arithmetic.multiply, arithmetic.divide, arithmetic.negative, arithmetic.power,
    arithmetic.floor_divide, elementwise.exp, elementwise.expm1, elementwise.log, elementwise.log1p, elementwise.sqrt,
    elementwise.sin, elementwise.cos, elementwise.floor, elementwise.sign, choice.maximum, choice.minimum, choice.where,
    comparison.isnan, comparison.logical_not, comparison.logical_or, comparison.logical_and,
    extremes.argmax, shape.cast, linear,
):  # fmt: skip
    tensor_kernel(_function)
tensor_kernel(comparison.eq, "equal")
tensor_kernel(comparison.ne, "not_equal")
tensor_kernel(comparison.gt, "greater")
tensor_kernel(comparison.ge, "greater_equal")
tensor_kernel(comparison.lt, "less")
tensor_kernel(comparison.le, "less_equal")
tensor_kernel(elementwise.abs, "absolute")


@tensor_kernel
def masked(x, mask):
    return choice.where(mask, x, 0.0)


@tensor_kernel
def sum(x, dim, keepdim):
    return reduction.Sum(dim, keepdim)(x)


@tensor_kernel
def max(x, dim, keepdim):
    return extremes.Extreme("max", dim, keepdim)(x)


@tensor_kernel
def min(x, dim, keepdim):
    return extremes.Extreme("min", dim, keepdim)(x)


@tensor_kernel
def copy(x):
    return x


@tensor_kernel
def reshape(x, new_shape):
    return shape.reshape(x, new_shape)


@tensor_kernel
def permute(x, dims):
    return shape.permute(x, dims)


@tensor_kernel
def swap_last(x):
    return shape.transpose(x, -1, -2)


@tensor_kernel
def broadcast_to(x, new_shape):
    return shape.Expand(tuple(new_shape))(x)


@tensor_kernel
def concatenate(tensors, dim):
    return joining.cat(tensors, dim)


@tensor_kernel
def slice_last(x, start, length):
    return Index((..., slice(start, start + length)))(x)


@tensor_kernel
def matmul(a, b, out=None):
    return MatMul()(a, b)
