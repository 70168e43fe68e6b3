"""Kernels whose arrays are tensors: what an op's backward runs on when it is itself to be differentiated.

They have the names and arguments of the kernels of a device, and are recorded on the tape as ops are. `@taped` puts a
function among them, beside the op whose backward calls it; the elementary ones are in `elementary.py`.
"""

from collections.abc import Callable
from functools import cache
from types import ModuleType

from minidl.tensor import Tensor

_functions: dict[str, Callable] = {}


def taped(function: Callable, name: str | None = None) -> Callable:
    """Make `function`, of tensors, the twin of the kernel of that name (by default its own)."""
    _functions[name or function.__name__] = function
    return function


class TapedKernels:
    """The twins of the kernels of one device."""

    def __init__(self, device_kernels: ModuleType):
        self.device_kernels = device_kernels

    def __getattr__(self, name: str) -> Callable:
        if name not in _functions:
            raise NotImplementedError(f"the kernel {name} has no twin on tensors: it cannot be differentiated twice")
        return _functions[name]

    def array(self, value, dtype) -> Tensor:
        return Tensor(self.device_kernels.array(value, dtype))

    def full(self, shape, value, dtype) -> Tensor:
        return Tensor(self.device_kernels.full(shape, value, dtype))


taped_kernels = cache(TapedKernels)
