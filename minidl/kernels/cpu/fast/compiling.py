"""How kernels are compiled: the options that all share, where machine code is kept, and who is told.

A first use takes seconds and says so, once; later ones find the machine code on disk, in __pycache__ or,
where that cannot be written, in the user's cache folder.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import numba
from numba.core import event
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from minidl.kernels.machine_code import MachineCode, folder
from minidl.notices import warn_once

FLAGS = {"reassoc", "contract", "arcp", "nsz"}  # not nnan: a NaN must come out of a kernel as a NaN
HERE = Path(__file__).parent
SHARED = (*HERE.parents[1].glob("*_rules.py"), HERE.parents[2] / "philox.py")  # with the GPU
SOURCES = tuple(sorted([*HERE.glob("*.py"), *SHARED]))  # what compiled code is made of
KEPT_IN = folder(HERE, SOURCES)


class CpuCode(MachineCode):
    """Of a kernel for this processor."""

    def packed(self, data) -> bytes | None:
        return None if data.library.has_dynamic_globals else dumps(data._reduce())  # addresses of this process

    def unpacked(self, code: bytes, target_context):
        return CompileResult._rebuild(target_context, *pickle.loads(code))


def njit(**options) -> Callable:
    """Numba's decorator of that name, for a kernel: it releases the GIL, and its machine code is kept on disk."""

    def decorate(function: Callable):
        kernel = numba.njit(nogil=True, error_model="numpy", **options)(function)
        if KEPT_IN is not None:
            kernel._cache = CpuCode(f"{function.__module__}.{function.__qualname__}", KEPT_IN, SOURCES)
        return kernel

    return decorate


class _Announce(event.Listener):
    """Told by Numba before it compiles; what it loads from its cache is not compiled."""

    def on_start(self, happening):
        if happening.data["dispatcher"].py_func.__module__.startswith("minidl."):
            kept = ", once" if KEPT_IN else ""
            warn_once(f"minidl compiles its kernels for this processor: some seconds{kept}")

    def on_end(self, happening):
        pass


event.register("numba:compile", _Announce())
