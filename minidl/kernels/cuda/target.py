"""`cuda`, in which the kernels of this folder are written: Numba's module of that name, or the
emulator's names; the type `unsigned` of their indices; and what a kernel is called.

MINIDL_CUDA=emulated, read when the first kernel is needed, chooses the emulator. Numba needs no GPU to be imported,
only to launch a kernel.
"""

import os

import numpy as np

EMULATED = os.environ.get("MINIDL_CUDA") == "emulated"
if EMULATED:
    from minidl.kernels.cuda import emulator as cuda

    unsigned = int
else:
    if not hasattr(np, "row_stack"):  # numba-cuda 0.30 asks for it, NumPy 2.5 has it no more
        np.row_stack = np.vstack
    from numba import cuda  # type: ignore[no-redef]

    # Places are counted in 32 bits without a sign. Signed ones would be looked at for being negative at every access,
    # 64 bits take twice the registers. Numba makes a float64 of an unsigned and a signed number: convert all.
    unsigned = np.uint32

__all__ = ["EMULATED", "cuda", "name_of", "unsigned"]


def name_of(kernel) -> str:
    """The module and the function that a kernel was written as."""
    return f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}".replace("<locals>.", "")
