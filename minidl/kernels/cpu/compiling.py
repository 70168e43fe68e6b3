"""How kernels are compiled: the options that all share, where machine code is kept, and who is told.

A first use takes seconds and says so, once; later ones find the machine code on disk, in __pycache__ or,
where that cannot be written, in the user's cache folder.
"""

from collections.abc import Callable

import numba
from numba.core import event

from minidl.kernels.cpu.machine_code import MachineCode, folder
from minidl.notices import warn_once

FLAGS = {"reassoc", "contract", "arcp", "nsz"}  # not nnan: a NaN must come out of a kernel as a NaN
KEPT_IN = folder()

if KEPT_IN is None:
    warn_once(
        "minidl compiles its kernels anew in every process: no folder can be written to keep them; name one in "
        "NUMBA_CACHE_DIR"
    )


def njit(**options) -> Callable:
    """Numba's decorator of that name, for a kernel: it releases the GIL, and its machine code is kept on disk."""

    def decorate(function: Callable):
        kernel = numba.njit(nogil=True, error_model="numpy", **options)(function)
        if KEPT_IN is not None:
            kernel._cache = MachineCode(function, KEPT_IN)
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
