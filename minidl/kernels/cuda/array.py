"""CudaArray: an array in the memory of the GPU, or a view of one."""

import math
from functools import cached_property

import numpy as np

from minidl.kernels import layout
from minidl.kernels.cuda.memory import Storage, compute, device

# Elements of an array: kernels count them in 32 bits, and a step beyond the last must find room too, which is as many
# as a grid has threads along a dimension: fewer than 2**20.
LARGEST = 2**32 - 2**20


class CudaArray:
    """Elements of a `storage`, in any order, as NumPy has them. ValueError for more of them than `LARGEST`.

    strides: elements from one place to the next along each dimension, None for row-major order. offset: the place of
    the first element, in elements.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype, storage: Storage | None = None, strides: layout.Strides = None, offset=0
    ):
        self.shape = shape
        self.dtype = np.dtype(dtype)
        if self.size > LARGEST:
            raise ValueError(f"an array of shape {shape} has {self.size:,} elements, cuda allows {LARGEST:,}")
        self.storage = storage if storage is not None else Storage(self.nbytes)
        self._strides = layout.simplified(shape, strides)
        self.offset = offset

    @property
    def strides(self) -> tuple[int, ...]:
        return self._strides or layout.row_major(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order, without gaps."""
        return self._strides is None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def view(self, shape: tuple[int, ...], strides: layout.Strides, offset: int = 0) -> "CudaArray":
        """Another view of the same storage; offset: from the first element of this one, in elements."""
        return CudaArray(shape, self.dtype, self.storage, strides, self.offset + offset)

    @property
    def first(self) -> int:
        """The place of the first element in `elements`: 0, but where strides are negative."""
        return -sum(step * (n - 1) for n, step in zip(self.shape, self.strides, strict=True) if step < 0 < n)

    @cached_property
    def elements(self):
        """What a kernel is given: all elements of the storage from the lowest of this array on, as one row."""
        start = self.offset - self.first
        count = self.storage.nbytes // self.dtype.itemsize - start if self.size else 0
        return device.elements(self.storage.block, start * self.dtype.itemsize, count, self.dtype)

    @property
    def address(self) -> int:
        """Of the first element."""
        return device.address(self.storage.block) + self.offset * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict:
        """By which CuPy, Numba and PyTorch share the memory (version 3 of Numba's interface)."""
        steps = None if self.contiguous else tuple(step * self.dtype.itemsize for step in self.strides)
        data = (self.address if self.size else 0, False)
        given = {"shape": self.shape, "typestr": self.dtype.str, "data": data, "strides": steps}
        return given | {"stream": compute.address, "version": 3}

    def __repr__(self) -> str:
        return f"CudaArray(shape={self.shape}, dtype={self.dtype})"
