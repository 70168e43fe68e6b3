"""Double backward: a backward that is itself recorded, so that gradients can be differentiated (`create_graph=True`).

An op's backward is written on the kernels of a device. To be recorded it runs once more as it stands, but on kernels
that are functions of tensors. `@tensor_kernel` puts a function among them, beside the op whose backward calls it; the
elementary ones are in `ops/elementary.py`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from minidl.kernels import BY_ARRAY, Interposed
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.op import Op

_tensor_kernels: dict[str, Callable] = {}


def tensor_kernel(function: Callable, name: str | None = None) -> Callable:
    """Let `function`, of tensors, stand for the kernel of that name (by default its own) in a double backward."""
    _tensor_kernels[name or function.__name__] = function
    return function


def on_tensors(op: Op) -> Op:
    """A copy of `op` on kernels of tensors, which saves as tensors on the tape what `op` saves as arrays.

    NotImplementedError: its backward can be differentiated only once. RuntimeError: it saves an array that is on no
    tape, and cannot compute it anew.
    """
    if op.once_differentiable:
        raise NotImplementedError(f"{type(op).__name__} cannot be differentiated twice: {op.once_differentiable}")
    recorded, inputs = copy.copy(op), _input_names(type(op))
    recorded.kernels = Interposed(op.kernels, _of_tensors)
    recorded.destination = lambda i: None
    computed = []
    for name, value in vars(op).items():
        if isinstance(value, np.generic):
            value = np.asarray(value)
        if isinstance(value, tuple | list) and any(_is_float_array(x) for x in value):
            computed.append(name)
        elif type(value) in BY_ARRAY:
            tensor = Tensor(value)
            if name in inputs:
                tensor.node = op.parents[inputs[name]]
            elif name == "y":
                tensor.node = op
            elif _is_float_array(value):
                computed.append(name)
            setattr(recorded, name, tensor)
    if computed:
        before = {name: vars(recorded)[name] for name in computed}
        recorded.recompute_saved()
        missing = [name for name in computed if vars(recorded)[name] is before[name]]
        if missing:
            raise RuntimeError(
                f"{type(op).__name__} saves {', '.join(missing)}: neither an input under the name of forward's "
                "parameter nor the result as y. To be differentiated twice it needs a method recompute_saved() that "
                "computes it"
            )
    return recorded


def _of_tensors(name: str, kernel):
    """What stands for the kernel of a device."""
    if name in ("array", "full"):  # arrays made on the way: of constants, so on no tape
        return lambda *arguments: Tensor(kernel(*arguments))
    if callable(kernel) and name not in _tensor_kernels:
        raise NotImplementedError(f"the kernel {name} has no tensor_kernel: it cannot be differentiated twice")
    return _tensor_kernels.get(name, kernel)


@cache
def _input_names(kind: type[Op]) -> dict[str, int]:
    names = list(inspect.signature(kind.forward).parameters)[1:]
    return {name: i for i, name in enumerate(names)}


def _is_float_array(x) -> bool:
    return type(x) in BY_ARRAY and x.dtype.kind == "f"
