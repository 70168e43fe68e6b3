"""Where the machine code of kernels for a GPU is kept, so that only the first process compiles them.

Kernels that one function makes, `map2(f)` of any f, have one name: what tells them apart is what they are made of.
"""

import dis
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

import numba_cuda
import numpy as np
from numba.cuda.dispatcher import CUDADispatcher, _Kernel
from numba.cuda.serialize import dumps
from numba.cuda.utils import numba_target_override

from minidl.kernels.cuda.target import name_of
from minidl.kernels.machine_code import MachineCode, folder
from minidl.notices import warn_once

# mypy: disable-error-code="import-not-found, attr-defined"

HERE = Path(__file__).parent
SOURCES = tuple(sorted(HERE.glob("*.py")))
KEPT_IN = folder(HERE, SOURCES)


@cache
def kept(kernel):
    """The kernel, which from now on looks for its machine code on disk before it compiles, and leaves it there."""
    if KEPT_IN is not None:
        with _anyway():
            kernel._cache = CudaCode(name_of(kernel), KEPT_IN, SOURCES, described(kernel), numba_cuda.__version__)
    return kernel


@contextmanager
def _anyway() -> Iterator[None]:
    """No trouble with what is kept keeps a kernel from being compiled."""
    try:
        yield
    except Exception as error:
        warn_once(f"minidl compiles kernels for the GPU anew in every process ({type(error).__name__}: {error})")


class CudaCode(MachineCode):
    """Of a kernel for a GPU."""

    def load_overload(self, sig, target_context):
        with _anyway(), numba_target_override():  # the target as in Numba's own cache
            return super().load_overload(sig, target_context)

    def save_overload(self, sig, data):
        with _anyway():
            super().save_overload(sig, data)

    def packed(self, data: _Kernel) -> bytes | None:
        """None for a kernel that was compiled for one grid: `load_overload` does not hear for which."""
        return None if data.launch_config_sensitive else dumps(data._reduce_states())

    def unpacked(self, code: bytes, target_context) -> _Kernel:
        return _Kernel._rebuild(**pickle.loads(code))


def described(thing) -> str:
    """All that decides what a kernel or a device function computes: its text, and what it has from outside.

    The same in every process; TypeError for what has no such description.
    """
    if isinstance(thing, CUDADispatcher):
        return f"{sorted(thing.targetoptions.items())} {described(thing.py_func)}"
    if isinstance(thing, FunctionType):
        code, outside = thing.__code__, thing.__globals__
        names = sorted({i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"} & outside.keys())
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        return f"{thing.__qualname__} {described((code, thing.__defaults__, *map(outside.get, names), *cells))}"
    if isinstance(thing, CodeType):
        return f"{thing.co_code.hex()} {thing.co_names} {thing.co_varnames} {described(thing.co_consts)}"
    if isinstance(thing, tuple):
        return f"({', '.join(map(described, thing))})"
    if isinstance(thing, ModuleType | BuiltinFunctionType | type):
        return thing.__name__
    if thing is None or isinstance(thing, int | float | str | np.generic | np.dtype):
        return repr(thing)
    raise TypeError(f"nothing is known of {thing!r}, which it uses")
