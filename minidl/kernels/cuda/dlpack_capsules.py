"""Memory shared with other libraries by DLPack: a struct that says where an array lies, handed on in a capsule.

The struct is version 0 of https://dmlc.github.io/dlpack/latest/c_api.html, which all libraries read.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p

import numpy as np

from minidl.kernels.cuda.array import LARGEST, CudaArray
from minidl.kernels.cuda.device_memory import Storage, compute, device
from minidl.kernels.cuda.target import EMULATED
from minidl.kernels.dlpack_kinds import CPU, CUDA

KIND = CPU if EMULATED else CUDA  # where arrays lie
CODES = {"i": 0, "u": 1, "f": 2, "b": 6}  # of dtypes
NAME, USED = b"dltensor", b"used_dltensor"  # of a capsule, before and after it is taken


class DLTensor(ctypes.Structure):
    """An array as the standard describes it (dlpack.h): where it lies, its dtype, shape and strides in elements."""

    _fields_ = [
        ("data", c_void_p), ("device_kind", c_int32), ("device_number", c_int32), ("ndim", c_int32),
        ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16), ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)), ("byte_offset", c_uint64),
    ]  # fmt: skip


class Managed(ctypes.Structure):
    """What is in a capsule: who takes the tensor calls `deleter` when it is done with it."""


Deleter = ctypes.CFUNCTYPE(None, POINTER(Managed))
Managed._fields_ = [("tensor", DLTensor), ("context", c_void_p), ("deleter", Deleter)]


def _python(name: str, result, *arguments):
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


Destructor = ctypes.PYFUNCTYPE(None, c_void_p)
new_capsule = _python("PyCapsule_New", ctypes.py_object, c_void_p, c_char_p, Destructor)
is_capsule = _python("PyCapsule_IsValid", c_int, c_void_p, c_char_p)
content = _python("PyCapsule_GetPointer", c_void_p, c_void_p, c_char_p)
rename = _python("PyCapsule_SetName", c_int, c_void_p, c_char_p)

_lent: dict[int, tuple] = {}  # address of a Managed -> it and all that must not go before it


def to_capsule(x: CudaArray):
    """A capsule that lends the memory of x, for whoever takes it, on any stream: all work on x so far is done."""
    compute.synchronize()
    shape, strides = ((c_int64 * max(1, x.ndim))(*numbers) for numbers in (x.shape, x.strides))
    tensor = DLTensor(
        x.address if x.size else 0, KIND, 0, x.ndim, CODES[x.dtype.kind], 8 * x.dtype.itemsize, 1, shape, strides, 0
    )
    managed = Managed(tensor, None, _give_back)
    address = ctypes.addressof(managed)
    _lent[address] = managed, shape, strides, x
    return new_capsule(address, NAME, _drop)


@Deleter
def _give_back(managed, lent=_lent, device=device, address=ctypes.addressof) -> None:
    """The tensor is not used any more, but kernels that others launched may still run on it."""
    device.synchronize()
    lent.pop(address(managed.contents), None)


@Destructor
def _drop(capsule, is_capsule=is_capsule, content=content, lent=_lent, name=NAME) -> None:
    """The capsule goes away: was the tensor never taken, it ends here."""
    if is_capsule(capsule, name):
        lent.pop(content(capsule, name), None)


for _callback in (_give_back, _drop):  # others call them even while Python ends: they are never freed
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callback))


class Borrowed(Storage):
    """Memory that belongs to another library, to whom it goes back with the last of its arrays."""

    __slots__ = ("managed",)

    def __init__(self, address: int, nbytes: int, managed):
        self.block, self.nbytes = device.foreign(address, nbytes), nbytes
        self.for_upload, self.copied, self.managed = False, None, managed

    def __del__(self) -> None:
        device.synchronize()
        if self.managed.contents.deleter:
            self.managed.contents.deleter(self.managed)


def from_capsule(capsule) -> CudaArray:
    """The array in a capsule, whose memory it shares.

    BufferError for dtypes that minidl does not have, and for memory of more elements than cuda allows.
    """
    if not is_capsule(id(capsule), NAME):
        raise BufferError("from_dlpack needs a capsule that nobody has taken")
    managed = ctypes.cast(content(id(capsule), NAME), POINTER(Managed))
    tensor = managed.contents.tensor
    kinds = {code: kind for kind, code in CODES.items()}
    dtype = f"{kinds.get(tensor.code, '?')}{tensor.bits // 8}"
    if dtype not in ("f4", "f8", "i8", "b1") or tensor.lanes != 1:
        raise BufferError("from_dlpack takes float32, float64, int64 and bool alone")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    reach = [step * (n - 1) for n, step in zip(shape, strides or (), strict=bool(strides))]
    low = sum(far for far in reach if far < 0) if 0 not in shape else 0
    itemsize = np.dtype(dtype).itemsize
    count = sum(map(abs, reach)) + 1 if strides else int(np.prod(shape))
    if count > LARGEST:
        raise BufferError(f"from_dlpack was given memory of {count:,} elements, cuda allows {LARGEST:,}")
    rename(id(capsule), USED)
    start = (tensor.data or 0) + tensor.byte_offset + low * itemsize
    storage = Borrowed(start, count * itemsize if 0 not in shape else 0, managed)
    return CudaArray(shape, dtype, storage, strides, -low)
