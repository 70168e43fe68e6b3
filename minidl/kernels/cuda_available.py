"""Whether there is a GPU to compute on, and if not, what is missing."""

import importlib.util
import os

INSTEAD = "MINIDL_CUDA=emulated runs its kernels without one"


def missing() -> str | None:
    """Why kernels cannot run on a GPU here, in one sentence; None if they can, or MINIDL_CUDA=emulated stands in."""
    setting = os.environ.get("MINIDL_CUDA", "")
    if setting == "emulated":
        return None
    if setting:
        return f"MINIDL_CUDA is {setting!r}: set it to 'emulated' to run without a GPU, or leave it unset"
    if importlib.util.find_spec("numba_cuda") is None:
        return f"install the compiler for a GPU with `pip install 'minidl[cuda]'`, or {INSTEAD}"
    from numba import cuda

    if cuda.is_available():
        return None
    why = str(cuda.cuda_error() or "").strip()
    if not why or "cannot be found" in why:
        return f"no NVIDIA driver is installed here; {INSTEAD}"
    return f"the NVIDIA driver finds no GPU to use ({why.splitlines()[0].rstrip('.:')}); {INSTEAD}"
