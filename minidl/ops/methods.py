"""The operators and methods of Tensor: importing this module puts them there, so tensor.py need not know the ops."""

from minidl.ops import (
    activation,
    arithmetic,
    choice,
    comparison,
    conversion,
    elementwise,
    extremes,
    indexing,
    joining,
    matmul,
    rearranging,
    reduction,
    shape,
    softmax,
)
from minidl.tensor import Tensor

OPERATORS = {
    "__add__": arithmetic.add,
    "__radd__": lambda x, other: arithmetic.add(other, x),
    "__sub__": arithmetic.subtract,
    "__rsub__": lambda x, other: arithmetic.subtract(other, x),
    "__mul__": arithmetic.multiply,
    "__rmul__": lambda x, other: arithmetic.multiply(other, x),
    "__truediv__": arithmetic.divide,
    "__rtruediv__": lambda x, other: arithmetic.divide(other, x),
    "__neg__": arithmetic.negative,
    "__pow__": arithmetic.power,
    "__rpow__": lambda x, other: arithmetic.power(other, x),
    "__matmul__": matmul.matmul,
    "__getitem__": indexing.getitem,
    "__abs__": elementwise.abs,
    "__floordiv__": arithmetic.floor_divide,
    "__rfloordiv__": lambda x, other: arithmetic.floor_divide(other, x),
    "__mod__": arithmetic.remainder,
    "__rmod__": lambda x, other: arithmetic.remainder(other, x),
    "__eq__": comparison.eq,
    "__ne__": comparison.ne,
    "__gt__": comparison.gt,
    "__ge__": comparison.ge,
    "__lt__": comparison.lt,
    "__le__": comparison.le,
    "__invert__": comparison.bitwise_not,
    "__and__": comparison.bitwise_and,
    "__rand__": lambda x, other: comparison.bitwise_and(other, x),
    "__or__": comparison.bitwise_or,
    "__ror__": lambda x, other: comparison.bitwise_or(other, x),
    "__xor__": comparison.bitwise_xor,
    "__rxor__": lambda x, other: comparison.bitwise_xor(other, x),
}

METHODS = [
    arithmetic.add, arithmetic.floor_divide, arithmetic.remainder, arithmetic.reciprocal, arithmetic.square,
    elementwise.abs, elementwise.sign, elementwise.exp, elementwise.expm1, elementwise.log, elementwise.log1p,
    elementwise.log2, elementwise.sqrt, elementwise.rsqrt, elementwise.sin, elementwise.cos, elementwise.erf,
    elementwise.floor, elementwise.ceil, elementwise.round,
    choice.clamp, choice.maximum, choice.minimum, choice.masked_fill, choice.lerp,
    comparison.eq, comparison.ne, comparison.gt, comparison.ge, comparison.lt, comparison.le, comparison.equal,
    comparison.isclose, comparison.allclose, comparison.isnan, comparison.isinf, comparison.isfinite,
    comparison.logical_not, comparison.logical_and, comparison.logical_or, comparison.logical_xor,
    activation.relu, activation.sigmoid, activation.tanh,
    softmax.softmax, softmax.log_softmax,
    reduction.sum, reduction.mean, reduction.var, reduction.std, reduction.prod, reduction.norm, reduction.logsumexp,
    reduction.cumsum, reduction.any, reduction.all,
    extremes.max, extremes.min, extremes.amax, extremes.amin, extremes.argmax, extremes.argmin, extremes.sort,
    extremes.argsort, extremes.topk,
    indexing.gather, indexing.scatter, indexing.scatter_add, indexing.index_select, indexing.masked_select,
    indexing.take_along_dim,
    joining.split, joining.chunk, joining.unbind, joining.narrow, joining.repeat, joining.repeat_interleave,
    rearranging.flip, rearranging.roll, rearranging.tril, rearranging.triu, rearranging.diagonal, rearranging.diag,
    matmul.matmul, matmul.bmm, matmul.dot, matmul.outer,
    shape.reshape, shape.flatten, shape.squeeze, shape.unsqueeze, shape.permute, shape.transpose, shape.movedim,
    shape.expand, shape.expand_as, shape.clone, shape.contiguous,
    shape.to, shape.pin_memory, shape.is_pinned,
    conversion.float, conversion.double, conversion.long, conversion.bool, conversion.type_as,
    conversion.tolist, conversion.size, conversion.dim, conversion.__iter__, conversion.__int__, conversion.__index__,
    conversion.__format__,
]  # fmt: skip

for _name, _function in OPERATORS.items():
    setattr(Tensor, _name, _function)
for _function in METHODS:
    setattr(Tensor, _function.__name__, _function)
Tensor.sub = arithmetic.subtract
Tensor.mul = arithmetic.multiply
Tensor.div = arithmetic.divide
Tensor.neg = arithmetic.negative
Tensor.pow = arithmetic.power
Tensor.clip = choice.clamp
Tensor.where = lambda x, condition, other: choice.where(condition, x, other)
Tensor.view = shape.reshape
Tensor.T = property(lambda x: shape.permute(x, range(x.ndim)[::-1]), doc="With the dimensions in reverse order.")
Tensor.cpu = lambda x: shape.to(x, "cpu")
Tensor.cuda = lambda x, non_blocking=False: shape.to(x, "cuda", non_blocking=non_blocking)
Tensor.mT = property(lambda x: shape.transpose(x, -2, -1), doc="With the last two dimensions exchanged.")
Tensor.__array_ufunc__ = None  # a NumPy array on the left of an operator leaves the operation, and its error, to us
