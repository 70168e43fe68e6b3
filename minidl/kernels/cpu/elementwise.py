"""Elementwise functions. Those of two arguments broadcast; the second may be a plain number."""

import numpy as np

__all__ = [
    "absolute", "add", "divide", "equal", "exp", "greater", "greater_equal", "less", "less_equal", "log", "maximum",
    "minimum", "multiply", "negative", "not_equal", "power", "relu", "relu_grad", "sigmoid", "sign", "sqrt", "subtract",
    "tanh", "where",
]  # fmt: skip


def _kernel(function):
    """`function`, giving an array always: NumPy makes a scalar of a result without dimensions."""

    def kernel(*inputs):
        return np.asarray(function(*inputs))

    kernel.__name__ = function.__name__
    return kernel


add = _kernel(np.add)
subtract = _kernel(np.subtract)
multiply = _kernel(np.multiply)
divide = _kernel(np.true_divide)
power = _kernel(np.power)
maximum = _kernel(np.maximum)
minimum = _kernel(np.minimum)
negative = _kernel(np.negative)
exp = _kernel(np.exp)
log = _kernel(np.log)
sqrt = _kernel(np.sqrt)
tanh = _kernel(np.tanh)
absolute = _kernel(np.absolute)
sign = _kernel(np.sign)
where = _kernel(np.where)
equal = _kernel(np.equal)
not_equal = _kernel(np.not_equal)
greater = _kernel(np.greater)
greater_equal = _kernel(np.greater_equal)
less = _kernel(np.less)
less_equal = _kernel(np.less_equal)


def relu(x):
    return np.asarray(np.maximum(x, 0))


def relu_grad(grad, y):
    """`grad` where the output `y` of relu is positive."""
    return np.asarray(grad * (y > 0))  # np.where is 10 times slower


def sigmoid(x):
    """1 / (1 + exp(-x)), by way of tanh, which cannot overflow."""
    y = np.tanh(x * 0.5)
    return np.asarray(y * 0.5 + 0.5)
