"""Memory shared with other libraries, without a copy: DLPack (NumPy, PyTorch, CuPy) and Numba's interface for CUDA.

Importing this module puts both on Tensor.
"""

from typing import Any

import numpy as np

from minidl import kernels
from minidl.dtypes import dtype_of
from minidl.kernels.dlpack_kinds import CPU, CUDA, PINNED
from minidl.tensor import Tensor


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor that shares the memory of `ext_tensor`, an array of another library, on the device where it lies.

    BufferError for dtypes that minidl does not have, and for devices other than the CPU and the first GPU.
    """
    kind, number = ext_tensor.__dlpack_device__()
    if kind in (CPU, PINNED):
        values = np.from_dlpack(ext_tensor)
        try:
            dtype_of(values.dtype)
        except ValueError as error:
            raise BufferError(str(error)) from None
        return Tensor(values)
    if kind == CUDA and number == 0:
        cuda, capsules = kernels.for_device("cuda"), _capsules()
        return Tensor(capsules.from_capsule(ext_tensor.__dlpack__(stream=cuda.compute.address)))
    raise BufferError(f"from_dlpack takes arrays on the CPU or the first GPU, not on device {kind}:{number}")


def _capsules():
    from minidl.kernels.cuda import dlpack_capsules

    return dlpack_capsules


def _dlpack(self, *, stream=None, max_version=None, dl_device=None, copy=None):
    """A capsule for another library's `from_dlpack`; all work on the tensor so far is done, whatever the stream.

    BufferError for tensors that require a gradient, which others would not see, or that lie on meta.
    """
    if self.requires_grad:
        raise BufferError("a tensor that requires a gradient cannot be shared: detach() it first")
    if self.device == "cpu":
        options = {"max_version": max_version, "dl_device": dl_device, "copy": copy}
        return self.data.__dlpack__(**{name: value for name, value in options.items() if value is not None})
    place = self.__dlpack_device__()
    if dl_device not in (None, place):
        raise BufferError(f"the tensor lies on device {place}: move it with .to()")
    data = self.kernels.copy(self.data) if copy else self.data
    return _capsules().to_capsule(data)


def _dlpack_device(self) -> tuple[int, int]:
    """(kind, number) of the device: (1, 0) for the CPU and for an emulated GPU, (2, 0) for a GPU."""
    if self.device == "meta":
        raise BufferError("a tensor on meta has no memory to share")
    return (CPU if self.device == "cpu" else _capsules().KIND), 0


def _cuda_array_interface(self) -> dict:
    """By which Numba, CuPy and PyTorch share a tensor on a GPU; AttributeError for one elsewhere.

    What they do on the default stream is in order with what minidl does before and after; on other streams they must
    see to that themselves.
    """
    if self.device != "cuda" or _capsules().KIND == CPU:
        where = "the emulator" if self.device == "cuda" else self.device
        raise AttributeError(f"only a tensor on a GPU has __cuda_array_interface__, this one is on {where}")
    if self.requires_grad:
        raise RuntimeError("a tensor that requires a gradient cannot be shared: detach() it first")
    return self.data.__cuda_array_interface__


Tensor.__dlpack__ = _dlpack  # type: ignore[attr-defined]
Tensor.__dlpack_device__ = _dlpack_device  # type: ignore[attr-defined]
Tensor.__cuda_array_interface__ = property(_cuda_array_interface)  # type: ignore[attr-defined]
