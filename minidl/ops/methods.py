"""The operators and methods of Tensor: importing this module puts them there, so tensor.py need not know the ops."""

from minidl.ops import activation, arithmetic, comparison, elementwise, matmul, reduction, shape, softmax
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
    "__getitem__": shape.getitem,
    "__abs__": elementwise.abs,
    "__eq__": comparison.equal,
    "__ne__": comparison.not_equal,
    "__gt__": comparison.greater,
    "__ge__": comparison.greater_equal,
    "__lt__": comparison.less,
    "__le__": comparison.less_equal,
}

METHODS = [
    elementwise.abs, elementwise.exp, elementwise.log, elementwise.sqrt,
    activation.relu, activation.sigmoid, activation.tanh,
    softmax.softmax, softmax.log_softmax,
    reduction.sum, reduction.mean, reduction.max, reduction.amax, reduction.argmax,
    matmul.matmul,
    shape.reshape, shape.flatten, shape.squeeze, shape.unsqueeze, shape.permute, shape.transpose, shape.expand,
    shape.split, shape.to,
]  # fmt: skip

for _name, _function in OPERATORS.items():
    setattr(Tensor, _name, _function)
for _function in METHODS:
    setattr(Tensor, _function.__name__, _function)
Tensor.view = shape.reshape
Tensor.T = property(lambda x: shape.permute(x, range(x.ndim)[::-1]), doc="With the dimensions in reverse order.")
Tensor.__array_ufunc__ = None  # a NumPy array on the left of an operator leaves the operation, and its error, to us
