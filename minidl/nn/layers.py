"""Linear layers, embedding, dropout, flatten, identity, with PyTorch's names, arguments and initialisation."""

from minidl import ops
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.ops.dropout import check_fraction
from minidl.ops.embedding import padding_row


class Linear(Module):
    """y = x @ weight^T + bias, on the last dimension."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        if in_features < 1 or out_features < 1:
            raise ValueError(f"Linear: in_features={in_features}, out_features={out_features}, both must be at least 1")
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter((out_features, in_features), init=init.fan_in_uniform(in_features))
        self.bias = Parameter((out_features,), init=init.fan_in_uniform(in_features)) if bias else None

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of `num_embeddings` learned rows of `embedding_dim`, looked up by index; it starts normal with `std`.

    The row padding_idx starts at zero and stays as it is: it gets no gradient.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *, std: float = 1.0):
        self.padding_idx = padding_row(padding_idx, num_embeddings)
        recipe = init.normal(std=std)
        if padding_idx is not None:
            recipe = init.zero_row(recipe, self.padding_idx)
        self.weight = Parameter((num_embeddings, embedding_dim), init=recipe)

    def forward(self, indices):
        return ops.embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self):
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}{padding}"


class Dropout(Module):
    """In training, zero a random fraction p of the elements and divide the rest by 1 - p."""

    def __init__(self, p: float = 0.5):
        check_fraction(p)
        self.p = p

    def forward(self, x):
        return ops.dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


class Dropout2d(Dropout):
    """Dropout of whole channels of images (batch, channels, height, width)."""

    def forward(self, x):
        return ops.dropout2d(x, self.p, self.training)


class Flatten(Module):
    """Join the dimensions from start_dim to end_dim into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        return ops.flatten(x, self.start_dim, self.end_dim)


class Identity(Module):
    """Gives back its input."""

    def forward(self, x):
        return x
