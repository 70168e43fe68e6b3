"""The same functions for every device: `cpu` computes with NumPy, `meta` only with shapes.

An op never touches an array itself. It calls `kernels.matmul(a, b)`, where `kernels` is the module that belongs to the
type of its arrays, so one op serves every device. A new device is a new module with these names and one line below.
"""

from types import ModuleType

import numpy as np

from minidl.kernels import cpu, meta

BY_DEVICE: dict[str, ModuleType] = {"cpu": cpu, "meta": meta}
BY_ARRAY: dict[type, ModuleType] = {np.ndarray: cpu, meta.MetaArray: meta}


def for_array(array) -> ModuleType:
    """The kernels of the device on which an array lies."""
    return BY_ARRAY[type(array)]


def for_device(name: str) -> ModuleType:
    """The kernels of the device `name`; ValueError names the devices there are."""
    if name not in BY_DEVICE:
        raise ValueError(f"unknown device {name!r}: this installation has {', '.join(BY_DEVICE)}")
    return BY_DEVICE[name]
