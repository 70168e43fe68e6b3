"""The elementary kernels on tensors: what most backwards are written in, so that they can be differentiated again."""

from minidl.ops import arithmetic, choice, comparison, elementwise, extremes, joining, reduction, shape
from minidl.ops.indexing import Index
from minidl.ops.matmul import MatMul, linear
from minidl.taped import taped

for _function in (
    arithmetic.add, arithmetic.subtract, arithmetic.multiply, arithmetic.divide, arithmetic.negative, arithmetic.power,
    arithmetic.floor_divide, elementwise.exp, elementwise.expm1, elementwise.log, elementwise.log1p, elementwise.sqrt,
    elementwise.sin, elementwise.cos, elementwise.floor, elementwise.sign, choice.maximum, choice.minimum, choice.where,
    comparison.isnan, comparison.logical_not, comparison.logical_or, comparison.logical_and,
    extremes.argmax, shape.cast, linear,
):  # fmt: skip
    taped(_function)
taped(comparison.eq, "equal")
taped(comparison.ne, "not_equal")
taped(comparison.gt, "greater")
taped(comparison.ge, "greater_equal")
taped(comparison.lt, "less")
taped(comparison.le, "less_equal")
taped(elementwise.abs, "absolute")


@taped
def masked(x, mask):
    return choice.where(mask, x, 0.0)


@taped
def sum(x, dim, keepdim):
    return reduction.Sum(dim, keepdim)(x)


@taped
def max(x, dim, keepdim):
    return extremes.Extreme("max", dim, keepdim)(x)


@taped
def min(x, dim, keepdim):
    return extremes.Extreme("min", dim, keepdim)(x)


@taped
def copy(x):
    return x


@taped
def reshape(x, new_shape):
    return shape.reshape(x, new_shape)


@taped
def permute(x, dims):
    return shape.permute(x, dims)


@taped
def swap_last(x):
    return shape.transpose(x, -1, -2)


@taped
def broadcast_to(x, new_shape):
    return shape.Expand(tuple(new_shape))(x)


@taped
def concatenate(tensors, dim):
    return joining.cat(tensors, dim)


@taped
def slice_last(x, start, length):
    return Index((..., slice(start, start + length)))(x)


@taped
def matmul(a, b, out=None):
    return MatMul()(a, b)
