"""Elements moved about: padded, reversed, rolled, triangles and diagonals."""

from collections.abc import Iterable, Sequence

import numpy as np

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.indexing import Index, IndexGrad
from minidl.ops.shape import along_a_dim, normalize_dim, permute, several_dims
from minidl.tensor import Tensor
from minidl.validation import check_int


class Pad(Op):
    """x with `value` around it: widths[d] = (before, after) along dimension d."""

    passes_gradient = True

    def __init__(self, widths: tuple[tuple[int, int], ...], value: float):
        self.widths, self.value = widths, value

    def forward(self, x):
        self.shape = x.shape
        return self.kernels.pad(x, self.widths, self.value)

    def backward(self, grad):
        inside = zip(self.widths, self.shape, strict=True)
        return self.kernels.index(grad, tuple(slice(before, before + n) for (before, _), n in inside))


class Flip(Op):
    """x in reverse order along the dimensions `dims`."""

    def __init__(self, dims: tuple[int, ...]):
        self.dims = dims

    def forward(self, x):
        return self.kernels.flip(x, self.dims)

    def backward(self, grad):
        return self.kernels.flip(grad, self.dims)


class Roll(Op):
    """x moved on by `shifts` along the dimensions `dims`; what leaves at the end comes in again at the beginning."""

    def __init__(self, shifts: tuple[int, ...], dims: tuple[int, ...] | None):
        self.shifts, self.dims = shifts, dims

    def forward(self, x):
        return self.kernels.roll(x, self.shifts, self.dims)

    def backward(self, grad):
        return self.kernels.roll(grad, tuple(-n for n in self.shifts), self.dims)


class Triangle(Op):
    """The matrices (..., n, m) of x with zeros above (lower) or below the diagonal."""

    def __init__(self, lower: bool, diagonal: int):
        self.lower, self.diagonal = lower, diagonal

    def forward(self, x):
        rows, columns = x.shape[-2:]
        lower = np.tri(rows, columns, self.diagonal if self.lower else self.diagonal - 1, bool)
        self.mask = self.kernels.array(lower if self.lower else ~lower, bool)
        return self.kernels.masked(x, self.mask)

    def backward(self, grad):
        return self.kernels.masked(grad, self.mask)


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """x with a border: pad = (before, after) of the last dimension, then of the last but one, and so on.

    mode: "constant" (of `value`; negative widths crop), "reflect" (without the edge), "replicate" (of the edge) or
    "circular".
    """
    for n in pad:
        check_int("pad", n)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: {tuple(pad)} must be pairs, and at most one for each dimension of shape {x.shape}")
    if mode not in MODES:
        raise ValueError(f"pad: mode={mode!r}, it must be one of {', '.join(MODES)}")
    widths = ((0, 0),) * (x.ndim - len(pad) // 2) + tuple(zip(pad[-2::-2], pad[::-2], strict=True))
    if any(n + before + after < 0 for n, (before, after) in zip(x.shape, widths, strict=True)):
        raise ValueError(f"pad: {tuple(pad)} crops more than there is in shape {x.shape}")
    if mode == "constant":
        if any(min(pair) < 0 for pair in widths):
            kept = zip(widths, x.shape, strict=True)
            x = Index(tuple(slice(max(0, -before), n - max(0, -after)) for (before, after), n in kept))(x)
            widths = tuple((max(0, before), max(0, after)) for before, after in widths)
        return Pad(widths, value)(x)
    for dim, (pair, n) in enumerate(zip(widths, x.shape, strict=True)):
        if pair != (0, 0):
            most = n - 1 if mode == "reflect" else n if mode == "circular" else max(pair)
            if not 0 <= min(pair) <= max(pair) <= most or n == 0:
                raise ValueError(f"pad: {pair} does not fit dim {dim} of shape {x.shape} with mode={mode!r}")
            places = x.kernels.array(np.pad(np.arange(n), pair, MODES[mode]), np.int64)
            x = Index((*(slice(None),) * dim, places))(x)
    return x


MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # NumPy's names


@along_a_dim
def flip(x: Tensor, *dims) -> Tensor:
    """A copy of x in reverse order along the dimensions `dims`."""
    return Flip(several_dims(dims[0] if len(dims) == 1 else dims, x.shape))(x)


tensor_kernel(flip)


def roll(x: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """x moved on by `shifts` along `dims`, end to beginning; without dims as one row of elements."""
    shifts = tuple(shifts) if isinstance(shifts, Iterable) else (shifts,)
    for shift in shifts:
        check_int("shifts", shift)
    if dims is not None:
        dims = tuple(normalize_dim(d, x.shape) for d in (dims if isinstance(dims, Iterable) else (dims,)))
    if len(shifts) != (1 if dims is None else len(dims)):
        raise ValueError(f"roll: {len(shifts)} shifts for {'no dims, it must be 1' if dims is None else len(dims)}")
    return Roll(shifts, dims)(x)


tensor_kernel(roll)


def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The matrices (..., n, m) with zeros above the diagonal (or that so many above it)."""
    return _triangle("tril", x, True, diagonal)


def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The matrices (..., n, m) with zeros below the diagonal (or that so many above it)."""
    return _triangle("triu", x, False, diagonal)


def _triangle(name, x, lower, diagonal):
    check_int("diagonal", diagonal)
    if x.ndim < 2:
        raise ValueError(f"{name} needs matrices (..., n, m), not shape {x.shape}")
    return Triangle(lower, diagonal)(x)


def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonals of the matrices that dim1 and dim2 make, or those `offset` above, as the last dimension."""
    check_int("offset", offset)
    dims = several_dims((dim1, dim2), x.shape)
    rest = [d for d in range(x.ndim) if d not in dims]
    return Index((..., *_diagonal_places(x, *(x.shape[d] for d in dims), offset)))(permute(x, *rest, *dims))


def _diagonal_places(x, rows, columns, offset):
    i = np.arange(max(0, -offset), max(0, -offset, min(rows, columns - offset)))
    return x.kernels.array(i, np.int64), x.kernels.array(i + offset, np.int64)


def diag(x: Tensor, diagonal: int = 0) -> Tensor:
    """The square matrix with the vector x on its diagonal (or that so many above it); of a matrix, that diagonal."""
    check_int("diagonal", diagonal)
    if x.ndim == 2:
        return Index(_diagonal_places(x, *x.shape, diagonal))(x)
    if x.ndim != 1:
        raise ValueError(f"diag needs a vector or a matrix, not shape {x.shape}")
    n = x.shape[0] + abs(diagonal)
    return IndexGrad(_diagonal_places(x, n, n, diagonal), (n, n))(x)
