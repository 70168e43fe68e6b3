"""Tensors from numbers, constants and chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np

from minidl import kernels, random
from minidl.dtypes import bool_, dtype_of, float32, float64, int64
from minidl.nested import leaves
from minidl.tensor import Tensor
from minidl.validation import check_int

_default_device = "cpu"


@contextmanager
def device(name: str) -> Iterator[None]:
    """Make new tensors on the device `name` inside the `with` block."""
    global _default_device
    kernels.for_device(name)
    before, _default_device = _default_device, name
    try:
        yield
    finally:
        _default_device = before


def default_device() -> str:
    return _default_device


def tensor(data, dtype=None, requires_grad: bool = False, device: str | None = None) -> Tensor:
    """A tensor with a copy of `data`: numbers, nested sequences, a NumPy array or a Tensor.

    Python floats become float32, Python ints int64, the numbers of a sequence all the same; a NumPy array keeps its
    dtype. ValueError for whole numbers that are beyond int64, unless there are floats among them or dtype is one.
    """
    if isinstance(data, Tensor):
        data = data.numpy()
    values = np.asarray(data)
    if not isinstance(data, (np.ndarray, np.generic)):
        if values.dtype.kind in "fuO" and (dtype is None or dtype_of(dtype).kind != "f"):
            _check_whole(data)
        if dtype is None and values.dtype == float64:
            dtype = float32
    k = kernels.for_device(device or default_device())
    return Tensor(k.array(values, dtype_of(dtype or values.dtype))).requires_grad_(requires_grad)


def _check_whole(data) -> None:
    """ValueError if all numbers in `data` are whole, and some beyond int64: NumPy makes floats or objects of them."""
    beyond = None
    for number in leaves(data):
        if getattr(number, "dtype", int64).kind == "f" or isinstance(number, float):
            return
        if beyond is None and isinstance(number, Integral) and not -(2**63) <= number < 2**63:
            beyond = number
    if beyond is not None:
        raise ValueError(f"the whole number {beyond} is beyond int64, the largest dtype of whole numbers")


def from_numpy(values: np.ndarray) -> Tensor:
    """The array itself as a tensor on the CPU: they share memory."""
    dtype_of(values.dtype)
    return Tensor(values)


def full(shape, value: float, dtype=None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of `shape` (sizes or one size) filled with `value`: int64 for an int, float32 for a float."""
    if dtype is None:
        dtype = bool_ if isinstance(value, bool) else int64 if isinstance(value, Integral) else float32
    k = kernels.for_device(device or default_device())
    return Tensor(k.full(shape_of(shape), value, dtype_of(dtype))).requires_grad_(requires_grad)


def zeros(*shape, dtype=float32, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros of `shape`, its sizes given one by one or as one sequence."""
    return full(sizes(shape), 0, dtype, device, requires_grad)


def ones(*shape, dtype=float32, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Ones of `shape`, its sizes given one by one or as one sequence."""
    return full(sizes(shape), 1, dtype, device, requires_grad)


def empty(*shape, dtype=float32, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of `shape`, its sizes given one by one or as one sequence, with any values."""
    k = kernels.for_device(device or default_device())
    return Tensor(k.empty(shape_of(sizes(shape)), dtype_of(dtype))).requires_grad_(requires_grad)


def eye(n: int, m: int | None = None, dtype=float32, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """The n by m matrix (n by n without m) with ones on its diagonal, else zeros."""
    return tensor(np.eye(n, m), dtype, requires_grad, device)


def arange(
    start: float, end: float | None = None, step: float = 1, dtype=None, device: str | None = None, requires_grad=False
) -> Tensor:
    """start, start + step, … below end; `arange(n)` counts from 0. int64 if all arguments are ints, else float32.

    To integers the three are cut to integers first. ValueError: the step is 0, or leads away from the end.
    """
    if end is None:
        start, end = 0, start
    start, end, step = _numbers("arange", start, end, step)
    if dtype is None:
        dtype = int64 if all(isinstance(x, Integral) for x in (start, end, step)) else float32
    if not all(map(math.isfinite, (start, end, step))):
        raise ValueError(f"arange from {start} to {end} by {step}: they must be finite")
    whole = dtype_of(dtype).kind != "f"
    away = (end < start) if step > 0 else (end > start)  # their product may be too small to have a sign
    if step == 0 or (whole and int(step) == 0) or away:
        raise ValueError(f"arange from {start} to {end}: the step {step} does not lead from one to the other")
    if whole:
        values = np.arange(int(start), int(end), int(step))
    else:  # as np.arange, whose own steps are the rounded distance of the first two values
        values = start + step * np.arange(math.ceil((end - start) / step), dtype=float64)
    return tensor(values, dtype, requires_grad, device)


def linspace(
    start: float, end: float, steps: int, dtype=float32, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """`steps` numbers from start to end, both included, at equal distances.

    To integers start and end are cut to integers first, and then what lies between them.
    """
    check_int("steps", steps)
    if steps < 0:
        raise ValueError(f"linspace: steps={steps}, it must be at least 0")
    start, end = _numbers("linspace", start, end)
    if dtype_of(dtype).kind == "i":
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ValueError(f"linspace from {start} to {end} to integers: they must be finite")
        start, end = int(start), int(end)
        gap, i = (end - start) / max(1, steps - 1), np.arange(steps)
        # Each half from its own end, as PyTorch rounds: a symmetric row stays symmetric
        first = (i < steps // 2) | (i == 0)
        values = np.where(first, start + gap * i, end - gap * (steps - 1 - i)).astype(int64)
    else:
        values = np.linspace(start, end, steps)
    return tensor(values, dtype, requires_grad, device)


def _numbers(name: str, *values) -> list:
    """The values, numbers or tensors of one number, as Python's numbers."""
    values = [x.item() if isinstance(x, Tensor | np.generic) else x for x in values]
    for x in values:
        if not isinstance(x, Real):
            raise TypeError(f"{name} needs numbers, not {x!r}")
    return values


def tril_indices(row: int, col: int, offset: int = 0, device: str | None = None) -> Tensor:
    """The places (2, n) of the elements of a (row, col) matrix that `tril` keeps, row by row."""
    return _triangle(np.tril_indices, row, col, offset, device)


def triu_indices(row: int, col: int, offset: int = 0, device: str | None = None) -> Tensor:
    """The places (2, n) of the elements of a (row, col) matrix that `triu` keeps, row by row."""
    return _triangle(np.triu_indices, row, col, offset, device)


def _triangle(places: Callable, row: int, col: int, offset: int, device: str | None) -> Tensor:
    for name, value in (("row", row), ("col", col), ("offset", offset)):
        check_int(name, value)
    return tensor(np.stack(places(row, offset, col)), int64, device=device)


# Chance: from the generator that `manual_seed` starts. Inside `capture` the draw is recorded, not what was drawn


def randn(*shape, dtype=float32, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers of mean 0 and variance 1."""
    return _drawn(lambda shape: random.default_generator().standard_normal(shape), shape, dtype, device, requires_grad)


def rand(*shape, dtype=float32, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers in [0, 1)."""
    return _drawn(
        lambda shape: random.default_generator().random(shape, np.float32), shape, dtype, device, requires_grad
    )


def randint(low: int, high, size=None, dtype=int64, device: str | None = None) -> Tensor:
    """Random integers from low up to, not including, high; `randint(high, size)` starts at 0."""
    if size is None:
        low, high, size = 0, low, high
    return _drawn(lambda shape: random.default_generator().integers(low, high, shape), (size,), dtype, device)


def randperm(n: int, device: str | None = None) -> Tensor:
    """The integers from 0 to n - 1 in random order."""
    check_int("n", n)
    return _drawn(lambda shape: random.default_generator().permutation(n), (n,), int64, device)


def _drawn(draw: Callable, shape: tuple, dtype, device: str | None, requires_grad: bool = False) -> Tensor:
    """What `draw(shape)` gives, as a tensor; on meta nothing is drawn."""
    k = kernels.for_device(device or default_device())
    return Tensor(k.drawn(draw, shape_of(sizes(shape)), dtype_of(dtype))).requires_grad_(requires_grad)


# Like another tensor


def full_like(x: Tensor, value: float) -> Tensor:
    """A tensor of the shape, dtype and device of x, filled with `value`."""
    return full(x.shape, value, x.dtype, x.device)


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape, dtype and device of x."""
    return full(x.shape, 0, x.dtype, x.device)


def ones_like(x: Tensor) -> Tensor:
    """Ones of the shape, dtype and device of x."""
    return full(x.shape, 1, x.dtype, x.device)


def rand_like(x: Tensor) -> Tensor:
    """Uniform random numbers in [0, 1), of the shape, dtype and device of x."""
    return rand(x.shape, dtype=x.dtype, device=x.device)


def randn_like(x: Tensor) -> Tensor:
    """Normal random numbers of mean 0 and variance 1, of the shape, dtype and device of x.

    Inside `random.scope` they are keyed by (seed, step, sample, layer), the first dimension of x being the samples.
    """
    return _drawn(random.normal, x.shape, x.dtype, x.device)


def sizes(arguments: Sequence) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence; TypeError for bools, which are none."""
    found = tuple(arguments[0] if len(arguments) == 1 and isinstance(arguments[0], Iterable) else arguments)
    if bool in map(type, found):
        raise TypeError(f"{found} must be ints: True and False are none")
    return found


def shape_of(shape: int | Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple; an int is that of a vector. ValueError unless its sizes are whole and not negative."""
    found = sizes((shape,))
    if not all(isinstance(n, Integral) and n >= 0 for n in found):
        raise ValueError(f"the shape {shape!r} needs whole sizes of at least 0")
    return found
