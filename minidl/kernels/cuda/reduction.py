"""Many elements to one: sums, extremes, products, and where the extremes stand. One kernel over a table.

dim: an int or a tuple, None for all, where a function says no other thing.
"""

import builtins
import functools
import math

import numpy as np

from minidl.kernels import shapes
from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.arrays import contiguous, fill, reshape, to_numpy
from minidl.kernels.cuda.block import laid_out, lay_out, tree, tree_of_places
from minidl.kernels.cuda.kernel_launch import BLOCKS, THREADS, WARP, block_for, collapsed, launch, over, padded
from minidl.kernels.cuda.places import place
from minidl.kernels.cuda.scalars import scalar
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["all", "any", "argmax", "argmin", "max", "min", "prod", "squared_norm", "sum"]

SERIAL = 256  # elements that one thread adds up: longer rows are split, for the sake of precision too
EACH = 8  # elements that one lane of a short row adds up, if that leaves a warp: the rounds of the tree cost as much
PARTS = 1 << 15  # of a row at most, since a grid has at most 65,535 blocks along y: a thread takes more, if need be


# The kernels


def reduction(of, combine, start, A: type):
    """of: what counts of an element; combine: of two numbers of type A, which `start` does not change."""
    over_lanes = tree(combine)

    @cuda.jit
    def reduce(
        out, x, rows, row_shape, to, of_x, outer, outer_shape, of_outer, width, step, side_by_side, inner
    ):  # fmt: skip
        """out[part, row] = the elements x[row, o, j] combined, o < outer, j < width, `step` apart.

        The lanes of a row lie along x in a block, or along y if rows are `side_by_side` in memory, so that in both
        cases the threads of a warp read neighbours. Each lane takes its elements in strides of all lanes, also those of
        the other blocks gridDim.y that work at the same rows, into a register; then a tree combines the lanes.
        inner: how many lanes go along j, the others along o; a power of 2.
        """
        shared = cuda.shared.array(THREADS, A)
        slot, lane, lanes, line, lines, next_lane = laid_out(side_by_side)
        rows, outer, width, step, inner = (
            unsigned(rows), unsigned(outer), unsigned(width), unsigned(step), unsigned(inner)
        )  # fmt: skip
        among = unsigned(lane + lanes * cuda.blockIdx.y)  # of all lanes of this row
        next_o, first_j = unsigned(lanes * cuda.gridDim.y) // inner, unsigned(among % inner)
        first, all_lines = unsigned(cuda.blockIdx.x * lines), unsigned(cuda.gridDim.x * lines)
        while first < rows:
            row = unsigned(first + line)
            value = start
            if row < rows:
                begin, o = place(row, row_shape, of_x), unsigned(among // inner)
                while o < outer:
                    i, j = unsigned(begin + place(o, outer_shape, of_outer)), first_j
                    while j < width:
                        value = combine(value, of(x[unsigned(i + j * step)]))
                        j = unsigned(j + inner)
                    o = unsigned(o + next_o)
            value = over_lanes(shared, value, slot, lane, lanes, next_lane)
            if lane == 0 and row < rows:
                out[unsigned(cuda.blockIdx.y * rows + place(row, row_shape, to))] = value
            first = unsigned(first + all_lines)

    return reduce


def arg_reduction(better, start, F: type):
    """better: whether of two values and their indices the second is the better; `start` is the worst value."""
    over_lanes = tree_of_places(better)

    @cuda.jit
    def arg_reduce(values, out, x, indices, known, rows, row_shape, to, of_x, width, step, side_by_side):
        """out[part, row] = the index j of the best element x[row, j], values[part, row] = that element.

        The threads go as in the kernel of reductions. known: the elements are the best of parts of a row, and
        `indices`, which lie as x does, says where they stood there.
        """
        shared = cuda.shared.array(THREADS, F)
        shared_indices = cuda.shared.array(THREADS, np.int64)
        slot, lane, lanes, line, lines, next_lane = laid_out(side_by_side)
        rows, width, step = unsigned(rows), unsigned(width), unsigned(step)
        all_lanes = unsigned(lanes * cuda.gridDim.y)
        first, all_lines = unsigned(cuda.blockIdx.x * lines), unsigned(cuda.gridDim.x * lines)
        while first < rows:
            row = unsigned(first + line)
            value, index = start, np.int64(NOWHERE)
            if row < rows:
                begin, j = place(row, row_shape, of_x), unsigned(lane + lanes * cuda.blockIdx.y)
                while j < width:
                    i = unsigned(begin + j * step)
                    other, at = x[i], indices[i] if known else np.int64(j)
                    if better(value, index, other, at):
                        value, index = other, at
                    j = unsigned(j + all_lanes)
            value, index = over_lanes(shared, shared_indices, value, index, slot, lane, lanes, next_lane)
            if lane == 0 and row < rows:
                to_row = unsigned(cuda.blockIdx.y * rows + place(row, row_shape, to))
                values[to_row], out[to_row] = value, index
            first = unsigned(first + all_lines)

    return arg_reduce


# The table


NOWHERE = np.iinfo(np.int64).max


def lowest(F: type):
    """No number of type F is smaller."""
    return F(-math.inf) if np.dtype(F).kind == "f" else F(False) if F is np.bool_ else F(np.iinfo(F).min)


def highest(F: type):
    """No number of type F is larger."""
    return F(math.inf) if np.dtype(F).kind == "f" else F(True) if F is np.bool_ else F(np.iinfo(F).max)


def total(F: type) -> type:
    """The type of a sum or product: integers and bools are counted in int64."""
    return F if np.dtype(F).kind == "f" else np.int64


def table(F: type) -> dict:
    """name -> (what counts of an element, how two are combined, what changes nothing, the type of the result)."""
    A = total(F)
    zero = F(0)
    return {
        "sum": (lambda x: A(x), "add", A(0), A),
        "prod": (lambda x: A(x), "multiply", A(1), A),
        "squared_norm": (lambda x: A(x * x), "add", A(0), A),
        "max": (lambda x: x, "maximum", lowest(F), F),
        "min": (lambda x: x, "minimum", highest(F), F),
        "any": (lambda x: x != zero, "logical_or", np.bool_(False), np.bool_),
        "all": (lambda x: x != zero, "logical_and", np.bool_(True), np.bool_),
    }


@functools.cache
def _kernel(name: str, F: type):
    """-> (kernel, what it gives for no elements, the type of its results)."""
    of, combine, start, A = table(F)[name]
    return reduction(cuda.jit(device=True)(of), scalar(combine, A), start, A), start, A


def larger(value, index, other, at):
    """Whether `other`, which stands at `at`, comes before `value`: it is NaN or larger, or as large and earlier."""
    if other > value or (other != other and value == value):
        return True
    return at < index and (other == value or (other != other and value != value))


def smaller(value, index, other, at):
    if other < value or (other != other and value == value):
        return True
    return at < index and (other == value or (other != other and value != value))


@functools.cache
def _arg_kernel(name: str, F: type):
    better, start = (larger, lowest(F)) if name == "argmax" else (smaller, highest(F))
    return arg_reduction(cuda.jit(device=True)(better), start, F)


# Launching them


class Plan:
    """How a reduction of x over the dimensions `dims` is laid over blocks."""

    def __init__(self, x: CudaArray, dims: set[int]):
        kept = [d for d in range(x.ndim) if d not in dims]
        to = dict(zip(kept, _row_major([x.shape[d] for d in kept]), strict=True))
        self.rows = math.prod(x.shape[d] for d in kept)
        kept.sort(key=lambda d: -abs(x.strides[d]))
        order = sorted(dims, key=lambda d: -abs(x.strides[d]))
        shape, (to, of_x) = collapsed(_of(x.shape, kept), _of(to, kept), _of(x.strides, kept))
        self.row_shape, self.to, self.of_x = padded(shape, 1), (*padded(to, 0), 0), (*padded(of_x, 0), x.first)
        (*outer, self.width), (steps,) = collapsed(_of(x.shape, order), _of(x.strides, order))
        *of_outer, self.step = steps
        self.outer, self.outer_shape, self.of_outer = math.prod(outer), padded(outer, 1), (*padded(of_outer, 0), 0)
        length = self.outer * self.width
        wanted = builtins.max(-(-length // EACH), builtins.min(length, WARP))
        self.side_by_side, self.block, lanes, lines = lay_out(length, wanted, self.step, shape[-1], of_x[-1])
        groups = -(-self.rows // lines)
        self.parts = 1
        while self.parts < PARTS and (
            self.parts * SERIAL * lanes < length
            or (self.parts * groups < BLOCKS // 4 and self.parts * 16 * lanes < length)
        ):
            self.parts *= 2
        self.blocks = over(groups, 1), self.parts
        self.inner = block_for(self.width, lanes * self.parts)[0]


def _row_major(shape) -> list[int]:
    return [math.prod(shape[d + 1 :]) for d in range(len(shape))]


def _of(numbers, dims) -> tuple[int, ...]:
    return tuple(numbers[d] for d in dims)


def _dims(x: CudaArray, dim) -> set[int]:
    dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return {d % x.ndim for d in dims} if x.ndim else set()


def reduced(name: str, x: CudaArray, dim, keepdim: bool) -> CudaArray:
    """The reduction `name` of the table over `dim`: rows that are split over several blocks take two launches."""
    kernel, start, A = _kernel(name, x.dtype.type)
    out = CudaArray(shapes.reduced(x.shape, dim, keepdim), A)
    if not x.size:
        fill(out, start)
        return out
    plan = Plan(x, _dims(x, dim))
    found = out if plan.parts == 1 else CudaArray((plan.parts, out.size), A)
    launch(
        kernel, plan.blocks, plan.block, found, x, plan.rows, plan.row_shape, plan.to, plan.of_x, plan.outer,
        plan.outer_shape, plan.of_outer, plan.width, plan.step, plan.side_by_side, plan.inner,
    )  # fmt: skip
    if plan.parts == 1:
        return out
    return reshape(reduced("sum" if name == "squared_norm" else name, found, 0, False), out.shape)


def _arg(name: str, x: CudaArray, dim) -> CudaArray:
    if dim is None:
        x, dim = reshape(contiguous(x), (x.size,)), 0
    if not x.ndim:
        x = reshape(x, (1,))
    dim %= x.ndim
    if not x.shape[dim]:
        raise ValueError(f"attempt to get {name} of an empty sequence")
    out = CudaArray((*x.shape[:dim], *x.shape[dim + 1 :]), np.int64)
    if out.size:
        return reshape(_arg_reduced(name, x, dim, None), out.shape)
    return out


def _arg_reduced(name: str, x: CudaArray, dim: int, indices: CudaArray | None) -> CudaArray:
    """indices: where the elements of x stood in longer rows, None if these are all."""
    plan = Plan(x, {dim})
    values, out = CudaArray((plan.parts, plan.rows), x.dtype), CudaArray((plan.parts, plan.rows), np.int64)
    known = indices if indices is not None else CudaArray((1,), np.int64)
    launch(
        _arg_kernel(name, x.dtype.type), plan.blocks, plan.block, values, out, x, known, int(indices is not None),
        plan.rows, plan.row_shape, plan.to, plan.of_x, plan.width, plan.step, plan.side_by_side,
    )  # fmt: skip
    return out if plan.parts == 1 else _arg_reduced(name, values, 0, out)


# The functions


def sum(x, dim, keepdim):
    return reduced("sum", x, dim, keepdim)


def prod(x, dim, keepdim):
    return reduced("prod", x, dim, keepdim)


def max(x, dim, keepdim):
    """NaN if one is; ValueError for no elements."""
    _refuse_nothing("maximum", x, dim)
    return reduced("max", x, dim, keepdim)


def min(x, dim, keepdim):
    """NaN if one is; ValueError for no elements."""
    _refuse_nothing("minimum", x, dim)
    return reduced("min", x, dim, keepdim)


def _refuse_nothing(name: str, x: CudaArray, dim) -> None:
    if 0 in (x.shape[d] for d in _dims(x, dim)):
        raise ValueError(f"zero-size array to reduction operation {name} which has no identity")


def any(x, dim, keepdim):
    return reduced("any", x, dim, keepdim)


def all(x, dim, keepdim):
    return reduced("all", x, dim, keepdim)


def argmax(x, dim):
    """The index of the (first) largest element along `dim`, in the flat array if None."""
    return _arg("argmax", x, dim)


def argmin(x, dim):
    """The index of the (first) smallest element along `dim`, in the flat array if None."""
    return _arg("argmin", x, dim)


def squared_norm(x):
    """The sum of the squares of the 1-D array x: a number. Waits for the GPU."""
    return float(to_numpy(reduced("squared_norm", x, None, False)))
