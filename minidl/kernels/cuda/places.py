"""Where a thread is, and where an element lies: functions that kernels call."""

from minidl.kernels.cuda.target import cuda, unsigned


@cuda.jit(device=True)
def column():
    """The place of this thread along the first dimension of the grid."""
    return unsigned(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)


@cuda.jit(device=True)
def columns():
    """How many threads the grid has along its first dimension."""
    return unsigned(cuda.gridDim.x * cuda.blockDim.x)


@cuda.jit(device=True)
def row():
    """The place of this thread along the second dimension of the grid."""
    return unsigned(cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y)


@cuda.jit(device=True)
def rows():
    """How many threads the grid has along its second dimension."""
    return unsigned(cuda.gridDim.y * cuda.blockDim.y)


@cuda.jit(device=True)
def place(index, shape, strides):
    """The place, in a row of memory, of element `index` in row-major order of an array of `shape`.

    strides: one for each dimension, and at the end the place of the first element.
    """
    at, rest = unsigned(strides[len(shape)]), unsigned(index)
    if rest == 0:  # the only row of contiguous arrays
        return at
    for d in range(len(shape) - 1, -1, -1):
        n = unsigned(shape[d])
        at = unsigned(at + rest % n * unsigned(strides[d]))
        rest = unsigned(rest // n)
    return at
