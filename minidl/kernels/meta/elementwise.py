"""Elementwise functions: shapes and costs. A transcendental function counts as 10 FLOPs."""

import numpy as np

from minidl.kernels.meta.record import MetaArray, result

__all__ = [
    "absolute", "add", "divide", "equal", "exp", "greater", "greater_equal", "less", "less_equal", "log", "maximum",
    "minimum", "multiply", "negative", "not_equal", "power", "relu", "relu_grad", "sigmoid", "sign", "sqrt", "subtract",
    "tanh", "where",
]  # fmt: skip


def _kernel(name, flops_per_element=1, dtype=None):
    def kernel(*inputs):
        arrays = [x for x in inputs if isinstance(x, MetaArray)]  # the others are plain numbers
        shape = arrays[0].shape if len(arrays) == 1 else np.broadcast_shapes(*(x.shape for x in arrays))
        found = arrays[0].dtype
        if any(x.dtype != found for x in arrays):  # a mask and numbers
            found = np.result_type(*(x.dtype for x in arrays))
        return result(name, arrays, shape, dtype or found, flops_per_element)

    kernel.__name__ = name
    return kernel


add = _kernel("add")
subtract = _kernel("subtract")
multiply = _kernel("multiply")
divide = _kernel("divide")
power = _kernel("power", 10)
maximum = _kernel("maximum")
minimum = _kernel("minimum")
negative = _kernel("negative")
exp = _kernel("exp", 10)
log = _kernel("log", 10)
sqrt = _kernel("sqrt")
tanh = _kernel("tanh", 10)
absolute = _kernel("absolute")
sign = _kernel("sign")
where = _kernel("where")
equal = _kernel("equal", dtype=bool)
not_equal = _kernel("not_equal", dtype=bool)
greater = _kernel("greater", dtype=bool)
greater_equal = _kernel("greater_equal", dtype=bool)
less = _kernel("less", dtype=bool)
less_equal = _kernel("less_equal", dtype=bool)


def relu(x):
    return result("relu", (x,), x.shape, x.dtype)


def relu_grad(grad, y):
    return result("relu_grad", (grad, y), y.shape, y.dtype, 2)


def sigmoid(x):
    return result("sigmoid", (x,), x.shape, x.dtype, 12)
