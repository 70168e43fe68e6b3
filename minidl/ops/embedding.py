"""Looking up rows of a table."""

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.tensor import Tensor


class Embedding(Op):
    """Row indices[...] of weight (rows, width) -> (..., width); the row `padding` gets no gradient."""

    one_dtype = False

    def __init__(self, padding: int | None):
        self.padding = padding

    def forward(self, indices, weight):
        self.rows = weight.shape[0]
        self.indices = indices if self.needs[1] else None
        return self.kernels.embedding(weight, indices)

    def backward(self, grad):
        k, indices = self.kernels, self.indices
        if self.padding is not None:
            learned = k.reshape(k.not_equal(indices, self.padding), (*indices.shape, 1))
            grad = k.masked(grad, learned)
        return None, k.embedding_grad(grad, indices, self.rows)


class EmbeddingGrad(Op):
    """Sum the rows of grad (..., width) by index -> (rows, width): the transpose of Embedding."""

    one_dtype = False

    def __init__(self, rows: int):
        self.rows = rows

    def forward(self, grad, indices):
        self.indices = indices
        return self.kernels.embedding_grad(grad, indices, self.rows)

    def backward(self, grad):
        return self.kernels.embedding(grad, self.indices), None


@tensor_kernel
def embedding_grad(grad, indices, rows):
    return EmbeddingGrad(rows)(grad, indices)


def embedding(indices: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """indices (...) of int64, weight (rows, width) -> (..., width); ValueError if an index is not a row.

    The row padding_idx, counted from the end if negative, gets no gradient.
    """
    if indices.dtype.kind != "i":
        raise TypeError(f"embedding: indices must be of dtype int64, not {indices.dtype}")
    return Embedding(padding_row(padding_idx, weight.shape[0]))(indices, weight)


def padding_row(padding_idx: int | None, rows: int) -> int | None:
    """padding_idx as an index from 0; ValueError if it is no row."""
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise ValueError(f"embedding: padding_idx={padding_idx} is no row of a table of {rows}")
    return padding_idx % rows
