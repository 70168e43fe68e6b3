"""The same functions for every device: `cpu` computes with NumPy, `cuda` on a GPU, `meta` only with shapes.

An op never touches an array itself. It calls `kernels.matmul(a, b)`, where `kernels` is the module that belongs to the
type of its arrays, so one op serves every device. A new device is a new module with these names and one line below.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

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


@contextmanager
def predicting(device: str) -> Iterator[None]:
    """In the `with` block meta attends as "cpu" or "cuda" does: in tiles, of which no weights are kept, or not.

    The device need not be there. ValueError for another.
    """
    if device not in WIDEST_IN_TILES:
        raise ValueError(f"device {device!r} cannot be predicted: there are {' and '.join(WIDEST_IN_TILES)}")
    before, meta.WIDEST_IN_TILES = meta.WIDEST_IN_TILES, WIDEST_IN_TILES[device]
    try:
        yield
    finally:
        meta.WIDEST_IN_TILES = before


def _load_cuda() -> None:
    """Import the kernels of the GPU, and Numba with them, when they are first needed."""
    availability = importlib.import_module("minidl.kernels.cuda_available")
    if missing := availability.missing():
        raise RuntimeError(f"no device cuda: {missing}")
    BY_DEVICE["cuda"] = cuda = importlib.import_module("minidl.kernels.cuda")
    BY_ARRAY[cuda.CudaArray] = cuda
