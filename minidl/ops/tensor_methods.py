"""The operators and methods of Tensor: importing this module puts them there, so tensor.py need not know the ops."""

from collections.abc import Callable

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
    "neg": arithmetic.negative,
    "abs": elementwise.abs,
    "invert": comparison.bitwise_not,
    "matmul": matmul.matmul,
    "getitem": indexing.getitem,
    "eq": comparison.eq,
    "ne": comparison.ne,
    "gt": comparison.gt,
    "ge": comparison.ge,
    "lt": comparison.lt,
    "le": comparison.le,
}
OPERATORS_WITH_NUMBERS = {  # a number may stand on either side
    "add": arithmetic.add,
    "sub": arithmetic.subtract,
    "mul": arithmetic.multiply,
    "truediv": arithmetic.divide,
    "floordiv": arithmetic.floor_divide,
    "mod": arithmetic.remainder,
    "pow": arithmetic.power,
    "and": comparison.bitwise_and,
    "or": comparison.bitwise_or,
    "xor": comparison.bitwise_xor,
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


def _reflected(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, other: function(other, x)


for _name, _function in (OPERATORS | OPERATORS_WITH_NUMBERS).items():
    setattr(Tensor, f"__{_name}__", _function)
for _name, _function in OPERATORS_WITH_NUMBERS.items():
    setattr(Tensor, f"__r{_name}__", _reflected(_function))
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
