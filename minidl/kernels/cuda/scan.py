"""Running sums and products along a dimension."""

import functools

from minidl.kernels.cuda.array import CudaArray
from minidl.kernels.cuda.block import laid_out, lay_out, scan
from minidl.kernels.cuda.elementwise import multiply
from minidl.kernels.cuda.kernel_launch import THREADS, collapsed, launch, over, padded
from minidl.kernels.cuda.places import place
from minidl.kernels.cuda.reduction import total
from minidl.kernels.cuda.scalars import scalar
from minidl.kernels.cuda.target import cuda, unsigned

__all__ = ["cumsum", "prod_grad"]


def running(combine, start, A: type):
    """combine: a device function of two numbers of type A, which `start` does not change."""
    over_lanes = scan(combine, start)

    @cuda.jit
    def scan_rows(out, x, rows, row_shape, to, of_x, width, to_next, next_x, side_by_side, exclusive):
        """out[row, j] = the elements x[row, : j + 1] combined, or x[row, :j] if `exclusive`.

        A row goes through shared memory in tiles of as many elements as it has lanes; what the tiles before it came to
        is carried on. The lanes lie along x in a block, or along y if rows are `side_by_side` in memory. A row is one
        block's: a few long ones leave most of the GPU idle.
        """
        shared = cuda.shared.array(THREADS, A)
        slot, lane, lanes, line, lines, next_lane = laid_out(side_by_side)
        rows, width = unsigned(rows), unsigned(width)
        to_next, next_x = unsigned(to_next), unsigned(next_x)
        first, all_lines = unsigned(cuda.blockIdx.x * lines), unsigned(cuda.gridDim.x * lines)
        while first < rows:
            row = unsigned(first + line)
            i = o = tile = unsigned(0)
            if row < rows:
                i, o = place(row, row_shape, of_x), place(row, row_shape, to)
            carry = start
            while tile < width:
                j = unsigned(tile + lane)
                here = row < rows and j < width
                value = start
                if here:
                    value = A(x[unsigned(i + j * next_x)])
                before, value, of_tile = over_lanes(shared, value, slot, lane, lanes, next_lane)
                if here:
                    out[unsigned(o + j * to_next)] = combine(carry, before if exclusive else value)
                carry = combine(carry, of_tile)
                tile = unsigned(tile + lanes)
            first = unsigned(first + all_lines)

    return scan_rows


@functools.cache
def _kernel(combine: str, start: int, F: type):
    A = total(F)
    return running(scalar(combine, A), A(start), A)


def scan_into(out: CudaArray, combine: str, start: int, x: CudaArray, dim: int, exclusive: bool) -> None:
    """out[...] = the elements of x before and at each place along `dim` combined; only those before if `exclusive`."""
    if not x.size:
        return
    kept = sorted(set(range(x.ndim)) - {dim}, key=lambda d: -abs(x.strides[d]))
    shape, (to, of_x) = collapsed(*(tuple(s[d] for d in kept) for s in (x.shape, out.strides, x.strides)))
    rows, width = x.size // x.shape[dim], x.shape[dim]
    side_by_side, block, _, lines = lay_out(width, width, x.strides[dim], shape[-1], of_x[-1])
    launch(
        _kernel(combine, start, x.dtype.type), over(rows, lines), block, out, x, rows, padded(shape, 1),
        (*padded(to, 0), out.first), (*padded(of_x, 0), x.first), width, out.strides[dim], x.strides[dim],
        side_by_side, int(exclusive),
    )  # fmt: skip


def cumsum(x, dim):
    """Running sums along `dim`, an int."""
    out = CudaArray(x.shape, total(x.dtype.type))
    scan_into(out, "add", 0, x, dim, False)
    return out


def prod_grad(grad, x, dim):
    """grad (x's shape, but 1 along `dim`) times the product of all other elements along `dim`, an int."""
    before, after = CudaArray(x.shape, x.dtype), CudaArray(x.shape, x.dtype)
    scan_into(before, "multiply", 1, x, dim, True)
    scan_into(_backwards(after, dim), "multiply", 1, _backwards(x, dim), dim, True)
    return multiply(multiply(grad, before), after)


def _backwards(x: CudaArray, dim: int) -> CudaArray:
    """A view in reverse order along `dim`."""
    strides = tuple(-step if d == dim else step for d, step in enumerate(x.strides))
    return x.view(x.shape, strides, x.strides[dim] * (x.shape[dim] - 1)) if x.size else x
