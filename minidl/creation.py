"""Tensors from numbers, constants and chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np

from minidl import kernels, random
from minidl.tensor import Tensor, default_device, dtype_of, float32, float64, int64


def tensor(data, dtype=None, requires_grad: bool = False, device: str | None = None) -> Tensor:
    """A tensor with a copy of `data`: numbers, nested sequences, a NumPy array or a Tensor.

    Python floats become float32, Python ints int64; a NumPy array keeps its dtype.
    """
    if isinstance(data, Tensor):
        data = data.numpy()
    values = np.asarray(data)
    if dtype is None and not isinstance(data, (np.ndarray, np.generic)) and values.dtype == float64:
        dtype = float32
    k = kernels.for_device(device or default_device())
    return Tensor(k.array(values, dtype_of(dtype or values.dtype))).requires_grad_(requires_grad)


def full(shape: int | Sequence[int], value: float, dtype=float32, device: str | None = None) -> Tensor:
    """A tensor of `shape` filled with `value`."""
    k = kernels.for_device(device or default_device())
    return Tensor(k.full(shape_of(shape), value, dtype_of(dtype)))


def zeros(*shape, dtype=float32, device: str | None = None) -> Tensor:
    """Zeros of `shape`, its sizes given one by one or as one sequence."""
    return full(sizes(shape), 0, dtype, device)


def ones(*shape, dtype=float32, device: str | None = None) -> Tensor:
    """Ones of `shape`, its sizes given one by one or as one sequence."""
    return full(sizes(shape), 1, dtype, device)


def arange(start: float, end: float | None = None, step: float = 1, dtype=None, device: str | None = None) -> Tensor:
    """start, start + step, … below end; `arange(n)` counts from 0. int64 if all arguments are ints, else float32."""
    if end is None:
        start, end = 0, start
    values = np.arange(start, end, step)
    return tensor(values, dtype or (float32 if values.dtype.kind == "f" else int64), device=device)


def randn(*shape, dtype=float32, device: str | None = None) -> Tensor:
    """Normal random numbers of mean 0 and variance 1, from the generator that `manual_seed` starts."""
    return tensor(random.default_generator().standard_normal(shape_of(sizes(shape))), dtype, device=device)


def rand(*shape, dtype=float32, device: str | None = None) -> Tensor:
    """Uniform random numbers in [0, 1), from the generator that `manual_seed` starts."""
    return tensor(random.default_generator().random(shape_of(sizes(shape)), np.float32), dtype, device=device)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape, dtype and device of x."""
    return full(x.shape, 0, x.dtype, x.device)


def ones_like(x: Tensor) -> Tensor:
    """Ones of the shape, dtype and device of x."""
    return full(x.shape, 1, x.dtype, x.device)


def randn_like(x: Tensor) -> Tensor:
    """Normal random numbers of mean 0 and variance 1, of the shape, dtype and device of x; on meta none are drawn.

    Inside `random.scope` they are keyed by (seed, step, sample, layer), the first dimension of x being the samples.
    """
    return zeros_like(x) if x.device == "meta" else tensor(random.normal(x.shape), x.dtype, device=x.device)


def sizes(arguments: Sequence) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(arguments) == 1 and isinstance(arguments[0], Iterable):
        return tuple(arguments[0])
    return tuple(arguments)


def shape_of(shape: int | Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple; an int is that of a vector. ValueError unless its sizes are whole and not negative."""
    found = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    if not all(isinstance(n, Integral) and n >= 0 for n in found):
        raise ValueError(f"the shape {shape!r} needs whole sizes of at least 0")
    return found
