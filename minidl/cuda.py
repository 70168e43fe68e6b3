"""The GPU: whether there is one, its name and its memory. The names are those of `torch.cuda`.

Without a GPU all of it can be asked, and what needs one raises RuntimeError with what is missing. Memory counts from
the first use of the device `cuda`, which also loads its compiler.
"""

import sys
from typing import Any

from minidl import kernels
from minidl.kernels.cuda_available import missing


def _module(name: str) -> Any:
    """A module of the GPU's kernels, None until the GPU is used."""
    return sys.modules.get(f"minidl.kernels.cuda.{name}")


def _memory() -> Any:
    """The module that manages the GPU's memory, None until the GPU is used."""
    return _module("device_memory")


def _device() -> Any:
    """The GPU, from now on in use; RuntimeError says what is missing."""
    kernels.for_device("cuda")
    return _memory().device


def is_available() -> bool:
    """Whether the device `cuda` can be used: there is a GPU, or MINIDL_CUDA=emulated stands in for one."""
    return missing() is None


def device_count() -> int:
    """How many GPUs there are. minidl uses the first."""
    return _device().count() if is_available() else 0


def get_device_name() -> str:
    """As its maker calls it; "emulated" with MINIDL_CUDA=emulated."""
    return _device().NAME


def synchronize() -> None:
    """Wait until the GPU has computed all it was given.

    RuntimeError if something went wrong there; and what kernels have refused, such as an index that is out of bounds.
    """
    _device().synchronize()
    sys.modules["minidl.kernels.cuda.refusals"].look()


def memory_allocated() -> int:
    """Bytes of the GPU's memory that arrays hold."""
    memory = _memory()
    return memory.pool.held if memory else 0


def memory_reserved() -> int:
    """Bytes that arrays hold, or that were freed and are kept for the next ones."""
    memory = _memory()
    return memory.pool.held + memory.pool.kept if memory else 0


def mem_get_info() -> tuple[int, int]:
    """Bytes of the GPU's memory that nobody holds, and of all of it."""
    device = _device()
    return device.free_memory(), device.total_memory()


def empty_cache() -> None:
    """Give what was freed back to the GPU, for others to use, and pinned memory to the host."""
    memory = _memory()
    if memory:
        memory.pool.empty()
        _module("staging").staging.empty()
