"""CUDA kernels compiled as for a GPU, without one: their PTX, and the registers and memory that ptxas gives them.

A kernel is handed over as the plain Python function it was written as. Its global `cuda` may be an emulator, `unsigned`
may be int, and the device functions it calls, found by name in its globals and closure, may be an emulator's: a copy is
compiled in which Numba's stand instead. A launch compiles through nvJitLink, with link-time optimization: tiled
products took the same registers so.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np

AMPERE, HOPPER = (8, 0), (9, 0)  # compute capabilities of the A100 and the H100


@dataclass(frozen=True)
class Compiled:
    """One kernel for one compute capability; memory in bytes, of one thread except for `shared`, of one block."""

    ptx: str
    registers: int
    spilled: int  # stores and loads
    stack: int  # local arrays that did not fit in registers
    shared: int  # static; what a launch adds is not in it

    @property
    def has_f64(self) -> bool:
        """Whether anything is computed, loaded or stored in double precision."""
        return ".f64" in self.ptx

    @property
    def has_64_bit_division(self) -> bool:
        """Whether integers of 64 bits are divided, by some 70 instructions; 32 bits take 10."""
        return re.search(r"\b(div|rem)\.[su]64", self.ptx) is not None


def missing() -> str | None:
    """What keeps kernels from being compiled here, in a sentence; None if nothing does."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install minidl[ptx]"
    from numba.cuda.cudadrv import nvvm

    if not nvvm.is_available():
        return "NVIDIA's compiler library NVVM is not installed: pip install minidl[ptx]"
    if ptxas() is None:
        return "ptxas is not installed: pip install minidl[ptx]"
    return None


def ptxas() -> str | None:
    """The path of the assembler: that of the package nvidia-cuda-nvcc, otherwise what PATH has."""
    nvidia = importlib.util.find_spec("nvidia")
    for folder in (nvidia and nvidia.submodule_search_locations) or []:
        path = Path(folder, "cu13", "bin", "ptxas")
        if path.exists():
            return str(path)
    return shutil.which("ptxas")


def types_of(arguments: Sequence[Any]) -> tuple:
    """The Numba types for which a launch with `arguments` compiles; a 1-D NumPy array stands for a device array.

    Raises ValueError for an array of more dimensions, since kernels are given 1-D arrays.
    """
    from numba.cuda import types as numba_types
    from numba.cuda.np.numpy_support import from_dtype
    from numba.cuda.typing.typeof import Purpose, typeof

    def type_of(argument):
        if not isinstance(argument, np.ndarray):
            return typeof(argument, Purpose.argument)
        if argument.ndim != 1:
            raise ValueError(f"an array of shape {argument.shape}; kernels are given 1-D arrays")
        # A device array is contiguous and writable, whatever the NumPy array that stands for it is.
        return numba_types.Array(from_dtype(argument.dtype), 1, "C")

    return tuple(type_of(argument) for argument in arguments)


def types_of_launch(described: Sequence[Any]) -> tuple:
    """The same of what the emulator's `recorded` says of a launch."""
    from numba.cuda import types as numba_types
    from numba.cuda.np.numpy_support import from_dtype

    def type_of(kind):
        if isinstance(kind, np.dtype):
            return numba_types.Array(from_dtype(kind), 1, "C")
        if isinstance(kind, tuple):
            return numba_types.BaseTuple.from_types(tuple(map(type_of, kind[1:])), kind[0])
        return from_dtype(np.dtype(kind))

    return tuple(map(type_of, described))


def compiled(
    kernel: Callable, argument_types: Sequence[Any], capability: tuple[int, int], fastmath: bool = False, **options: Any
) -> Compiled:
    """`kernel` compiled for `argument_types` (of Numba, see `types_of`) and for GPUs of `capability`.

    `options` are those of `cuda.compile_ptx`, such as `launch_bounds`. Numba's errors of typing come through.
    """
    # NumPy 2.5 took the name away that numba-cuda 0.30 looks up.
    if not hasattr(np, "row_stack"):
        np.row_stack = np.vstack
    from numba import cuda
    from numba.cuda import dispatcher

    # Numba compiles a device function for the current device, and there is none.
    device = types.SimpleNamespace(compute_capability=capability)
    with mock.patch.object(dispatcher, "get_current_device", lambda: device):
        function = for_numba(kernel, lambda f, **options: cuda.jit(device=True, fastmath=fastmath, **options)(f), {})
        ptx, _ = cuda.compile_ptx(function, tuple(argument_types), cc=capability, fastmath=fastmath, **options)
    return assembled(ptx, capability)


def for_numba(function: Callable, as_device_function: Callable, made: dict[int, Any]) -> Callable:
    """A copy of `function` in which Numba's `cuda` stands for its `cuda`, and its device functions are Numba's too.

    `made` holds, by identity, what device functions were made into, so that each is made once.
    """
    from numba import cuda

    def replaced(name, value):
        if name == "cuda":
            return cuda
        if name == "unsigned":
            return np.uint32
        if not is_device_function(value):
            return value
        if id(value) not in made:
            options = {"forceinline": True} if getattr(value, "targetoptions", {}).get("forceinline") else {}
            made[id(value)] = as_device_function(for_numba(value.py_func, as_device_function, made), **options)
        return made[id(value)]

    code, outside = function.__code__, function.__globals__
    names = {"__builtins__", "__name__", *code.co_names} & outside.keys()
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    return types.FunctionType(
        code,
        {name: replaced(name, outside[name]) for name in names},
        function.__name__,
        function.__defaults__,
        tuple(types.CellType(replaced(name, cell.cell_contents)) for name, cell in cells),
    )


def is_device_function(value: Any) -> bool:
    """Whether `value` is a device function of an emulator or of Numba."""
    options = getattr(value, "targetoptions", {})
    return hasattr(value, "py_func") and (getattr(value, "device", False) is True or options.get("device") is True)


def assembled(ptx: str, capability: tuple[int, int]) -> Compiled:
    """What ptxas says of `ptx`; raises RuntimeError with its words if it refuses."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        # Without -c: a relocatable object leaves shared arrays to the linker, and ptxas does not count them.
        command = [ptxas(), "-v", "-arch=sm_{}{}".format(*capability), "-o", target, source]
        said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        raise RuntimeError(f"ptxas: {said.stderr.strip()}")

    def numbers(what):
        return [int(number) for number in re.findall(rf"(\d+) {what}", said.stderr)]

    return Compiled(
        ptx,
        registers=max(numbers("registers")),
        spilled=sum(numbers("bytes spill stores") + numbers("bytes spill loads")),
        stack=max(numbers("bytes stack frame")),
        shared=max(numbers("bytes smem"), default=0),
    )
