"""The same functions for every device: `cpu` computes with NumPy, `cuda` on a GPU, `meta` only with shapes.

An op never touches an array itself. It calls `kernels.matmul(a, b)`, where `kernels` is the module that belongs to the
type of its arrays, so one op serves every device. A new device is a module with the functions that `cpu` has
(tests/kernels/test_kernels.py compares them), entered below by its name and by the type of its arrays.
"""

import importlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from minidl.kernels import cpu, meta
from minidl.kernels.algorithms import WIDEST_IN_TILES

BY_DEVICE: dict[str, ModuleType] = {"cpu": cpu, "meta": meta}
BY_ARRAY: dict[type, ModuleType] = {np.ndarray: cpu, meta.MetaArray: meta}


def for_array(array) -> ModuleType:
    """The kernels of the device on which an array lies."""
    return BY_ARRAY[type(array)]


def beside(like, array):
    """`array` on the device on which `like` lies: itself if it lies there, else a copy."""
    if type(array) is type(like):
        return array
    return for_array(like).array(for_array(array).to_numpy(array), array.dtype)


def for_device(name: str) -> ModuleType:
    """The kernels of the device `name`. ValueError names the devices there are; RuntimeError says what a GPU lacks."""
    if name == "cuda" and name not in BY_DEVICE:
        _load_cuda()
    if name not in BY_DEVICE:
        raise ValueError(f"unknown device {name!r}: there are cpu, meta and cuda")
    return BY_DEVICE[name]


class Interposed:
    """The kernels of a device with something in between: each is what `replace(name, kernel)` gives.

    It stands wherever a module of kernels does. Constants, such as DEVICE, go through `replace` as functions do.
    """

    def __init__(self, kernels: ModuleType, replace: Callable[[str, Any], Any]):
        self._kernels, self._replace = kernels, replace

    def __getattr__(self, name: str) -> Any:
        found = self._replace(name, getattr(self._kernels, name))
        setattr(self, name, found)  # the next look-up comes here no more
        return found


@contextmanager
def interposed(array_type: type, replace: Callable[[str, Any], Any]) -> Iterator[None]:
    """In the `with` block ops on arrays of `array_type` run on what `replace(name, kernel)` gives for their kernels."""
    kernels = BY_ARRAY[array_type]
    BY_ARRAY[array_type] = BY_DEVICE[kernels.DEVICE] = Interposed(kernels, replace)
    try:
        yield
    finally:
        BY_ARRAY[array_type] = BY_DEVICE[kernels.DEVICE] = kernels


@contextmanager
def predicting(device: str) -> Iterator[Hashable]:
    """In the `with` block meta attends as "cpu" or "cuda" does: in tiles, of which no weights are kept, or not.

    Gives what is equal where the same kernels run. The device need not be there; "flash" has tiles for heads of any
    width. ValueError for another.
    """
    if device not in WIDEST_IN_TILES:
        raise ValueError(f"device {device!r} cannot be predicted: there are {' and '.join(WIDEST_IN_TILES)}")
    widest, kernels = WIDEST_IN_TILES[device], BY_ARRAY[meta.MetaArray]
    with interposed(meta.MetaArray, lambda name, kernel: widest if name == "WIDEST_IN_TILES" else kernel):
        yield device, kernels


def _load_cuda() -> None:
    """Import the kernels of the GPU, and Numba with them, when they are first needed."""
    availability = importlib.import_module("minidl.kernels.cuda_available")
    if missing := availability.missing():
        raise RuntimeError(f"no device cuda: {missing}")
    BY_DEVICE["cuda"] = cuda = importlib.import_module("minidl.kernels.cuda")
    BY_ARRAY[cuda.CudaArray] = cuda
