"""How kernels are launched: over how many blocks of how many threads, and with what."""

import math
import os
from collections.abc import Sequence
from operator import gt

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.device_memory import compute, device
from minidl.kernels.cuda.target import name_of

WARP = 32  # threads that go together
THREADS = 128 if device.NAME == "emulated" else 256  # in a block
BLOCKS = 16 * device.MULTIPROCESSORS  # more than the GPU runs at once: threads go on to the next elements
LARGEST_GRID = 2**31 - 1, 2**16 - 1, 2**16 - 1  # blocks along x, y and z that a GPU takes
SYNCHRONOUS = os.environ.get("MINIDL_CUDA_SYNC") == "1"

launches = 0  # of kernels, since the process began


def launch(kernel, blocks, threads, *arguments) -> None:
    """Run `kernel` on a grid of `blocks` of `threads`: ints, or tuples of up to 3 of them. Arrays are CudaArrays.

    Returns at once, and what goes wrong on the GPU is raised by some later call; with MINIDL_CUDA_SYNC=1 it returns
    when the kernel is done, and RuntimeError names the kernel. ValueError for more blocks than a GPU takes.
    """
    global launches
    if isinstance(blocks, tuple) and any(map(gt, blocks, LARGEST_GRID)):
        raise ValueError(f"a grid of {blocks} blocks for {name_of(kernel)}: a GPU takes at most {LARGEST_GRID}")
    launches += 1
    given = [a.elements if isinstance(a, CudaArray) else a for a in arguments]
    if not SYNCHRONOUS:
        device.launch(kernel, blocks, threads, compute, given)
        return
    try:
        device.launch(kernel, blocks, threads, compute, given)
        device.synchronize()
    except RuntimeError as error:
        error.args = (f"{error}, in the kernel {name_of(kernel)}",)
        raise


def over(count: int, threads: int = THREADS) -> int:
    """How many blocks of `threads` go over `count` elements, one or more for each thread."""
    return max(1, min(BLOCKS, -(-count // threads)))


def block_for(width: int, threads: int = THREADS) -> tuple[int, int]:
    """The shape (x, y) of a block of `threads` that goes along rows of `width`: x a power of 2, y rows at a time."""
    x = 1
    while x < width and x < threads:
        x *= 2
    return x, threads // x


def over_rows(rows: int, width: int, block: tuple[int, int]) -> tuple[int, int]:
    """How many blocks of the shape `block` go over a matrix (rows, width)."""
    x = min(-(-width // block[0]), BLOCKS)
    return max(1, x), max(1, min(-(-rows // block[1]), max(1, BLOCKS // max(1, x))))


def collapsed(shape: tuple[int, ...], *strides: tuple[int, ...]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The same elements in as few dimensions as can be: those of size 1 left out, those that lie on end made one.

    strides: of several arrays, all of `shape`. At least one dimension is left.
    """
    dims: list[tuple[int, list[int]]] = []
    for n, *steps in zip(shape, *strides, strict=True):
        if n == 1:
            continue
        if dims and all(before == n * step for before, step in zip(dims[-1][1], steps, strict=True)):
            dims[-1] = dims[-1][0] * n, steps
        else:
            dims.append((n, steps))
    if not dims:
        dims.append((math.prod(shape), [0] * len(strides)))
    return tuple(n for n, _ in dims), [tuple(steps[k] for _, steps in dims) for k in range(len(strides))]


def padded(numbers: Sequence[int], value: int) -> tuple[int, ...]:
    """With `value` in front, so that one compiled kernel serves up to 4 numbers, and one up to 8, and so on."""
    length = 4
    while length < len(numbers):
        length *= 2
    return (*(value,) * (length - len(numbers)), *numbers)
