"""Looking up rows of a table."""

from minidl.tensor import Op, Tensor


class Embedding(Op):
    """Row indices[...] of weight (rows, width) -> (..., width)."""

    one_dtype = False

    def forward(self, indices, weight):
        self.rows = weight.shape[0]
        self.indices = indices if self.needs[1] else None
        return self.kernels.embedding(weight, indices)

    def backward(self, grad):
        return None, self.kernels.embedding_grad(grad, self.indices, self.rows)


def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """indices (...) of int64, weight (rows, width) -> (..., width); ValueError if an index is not a row."""
    if indices.dtype.kind != "i":
        raise TypeError(f"embedding: indices must be of dtype int64, not {indices.dtype}")
    return Embedding()(indices, weight)
