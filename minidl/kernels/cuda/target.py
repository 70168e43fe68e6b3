"""`cuda`, in which the kernels of this folder are written: Numba's module of that name, or the emulator's names.

MINIDL_CUDA=emulated, read when the first kernel is needed, chooses the emulator. Numba needs no GPU to be imported,
only to launch a kernel.
"""

import os

SETTING = os.environ.get("MINIDL_CUDA", "")
if SETTING not in ("", "emulated"):
    raise ValueError(f"MINIDL_CUDA={SETTING!r}: set it to 'emulated', or leave it unset for a GPU")

EMULATED = SETTING == "emulated"
if EMULATED:
    from minidl.kernels.cuda import emulator as cuda
else:
    from numba import cuda  # type: ignore[no-redef]

__all__ = ["EMULATED", "cuda"]
