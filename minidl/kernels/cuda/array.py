"""CudaArray: an array in the memory of the GPU, or a view of one."""

from functools import cached_property

from minidl.kernels import memory_order
from minidl.kernels.cuda.device_memory import Storage, compute, device

# Elements of an array: kernels count them in 32 bits, and a step beyond the last must find room too, which is as many
# as a grid has threads along a dimension: fewer than 2**20.
LARGEST = 2**32 - 2**20


class CudaArray(memory_order.LaidOut):
    """Elements of a `storage`, in any order, as NumPy has them. ValueError for more of them than `LARGEST`.

    strides: as LaidOut has them. offset: the place of the first element, in elements.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype,
        storage: Storage | None = None,
        strides: memory_order.Strides = None,
        offset=0,
    ):
        super().__init__(shape, dtype, strides)
        if self.size > LARGEST:
            raise ValueError(f"an array of shape {shape} has {self.size:,} elements, cuda allows {LARGEST:,}")
        self.storage = storage if storage is not None else Storage(self.nbytes)
        self.offset = offset

    def view(self, shape: tuple[int, ...], strides: memory_order.Strides, offset: int = 0) -> "CudaArray":
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
