"""Where an element lies: functions that kernels call."""

from minidl.kernels.cuda.target import cuda


@cuda.jit(device=True)
def place(index, shape, strides):
    """The place, in a row of memory, of element `index` in row-major order of an array of `shape`.

    strides: one for each dimension, and at the end the place of the first element.
    """
    at = strides[len(shape)]
    if index == 0:  # the only row of contiguous arrays
        return at
    for d in range(len(shape) - 1, -1, -1):
        at += index % shape[d] * strides[d]
        index //= shape[d]
    return at
