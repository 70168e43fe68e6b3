"""Copies between host and GPU: those it waits for, and those beside the computation, in streams of their own.

The latter need pinned memory of the host. The computation waits for a copy to the GPU only from the next kernel on, a
copy back waits for the kernels launched before it; the host waits for neither. Every pinned block knows the event of
its last copy, and every block of the GPU that of its last copy back, before which they are not used again.
"""

from __future__ import annotations

import numpy as np

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import array, contiguous, copy, to_numpy
from minidl.kernels.cuda.device_memory import Storage, compute, device, downloads, uploads
from minidl.kernels.cuda.refusals import look
from minidl.kernels.cuda.staging import is_pinned, pinned, staging

__all__ = ["Download", "from_device", "to_host", "upload"]


def upload(values: np.ndarray) -> tuple[CudaArray, device.Event, device.Event]:
    """Begin to copy a contiguous pinned array to the GPU -> the new array, and when the copy begins and ends."""
    out = CudaArray(values.shape, values.dtype, Storage(values.nbytes, for_upload=True))
    start = device.Event(uploads)
    if values.size:
        device.to_device(out.storage.block, 0, values, uploads)
    end = device.Event(uploads)
    staging.copied(values, end)
    compute.wait(end)
    return out, start, end


class Download:
    """A copy to the host under way, from `start` to `end`. Until then no kernel may write to x, which may be freed."""

    def __init__(self, x: CudaArray):
        x = contiguous(x)
        downloads.wait(device.Event(compute))
        self.values = pinned(x.shape, x.dtype)
        self.start = device.Event(downloads)
        if x.size:
            device.to_host(self.values, x.storage.block, x.offset * x.dtype.itemsize, downloads)
        self.end = x.storage.copied = device.Event(downloads)
        staging.copied(self.values, self.end)

    def done(self) -> bool:
        return self.end.done()

    def numpy(self) -> np.ndarray:
        """The values: waits for them, and raises what kernels before them have refused."""
        self.end.synchronize()
        look()
        return self.values


def to_host(x, beside):
    """The values of x on the host; beside: they may arrive there later, when the GPU has been waited for."""
    return Download(copy(x)).values if beside else to_numpy(x)  # a copy, as kernels may soon write to x


def from_device(x, kernels, beside):
    """A copy of x, an array of `kernels`. beside: it may run beside the computation if x lies in pinned memory."""
    values = kernels.to_host(x, beside)
    if beside and values.flags.c_contiguous and is_pinned(values):
        return upload(values)[0]
    return array(values, values.dtype)
