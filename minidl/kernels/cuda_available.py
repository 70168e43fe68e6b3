"""Whether there is a GPU to compute on, and if not, what is missing."""

import importlib.util
import os


def missing() -> str | None:
    """Why kernels cannot run on a GPU here, in one sentence; None if they can, or MINIDL_CUDA=emulated stands in."""
    if os.environ.get("MINIDL_CUDA") == "emulated":
        return None
    if importlib.util.find_spec("numba_cuda") is None:
        return (
            "install its compiler with `pip install 'minidl[cuda]'`, or set MINIDL_CUDA=emulated to run without a GPU"
        )
    from numba import cuda

    if not cuda.is_available():
        return "Numba finds no NVIDIA GPU or no driver for it; MINIDL_CUDA=emulated runs without one"
    return None
