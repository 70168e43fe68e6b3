"""Reading and writing elements by their places: x[key], gather, scatter, masks."""

import operator
from contextlib import suppress
from reprlib import repr

import numpy as np

from minidl.double_backward import tensor_kernel
from minidl.kernels import BY_ARRAY
from minidl.op import Op
from minidl.ops.shape import cast, expand, normalize_dim, reshape, vector
from minidl.tensor import Tensor
from minidl.validation import check_int


class Index(Op):
    """x[key], for a tuple of ints, slices and arrays of ints or bools."""

    def __init__(self, key: tuple):
        self.key = key

    def forward(self, x):
        self.shape = x.shape
        return self.kernels.index(x, self.key)

    def backward(self, grad):
        return self.kernels.index_grad(grad, self.key, self.shape)


class IndexGrad(Op):
    """Zeros of `shape` with x added at `key`: the transpose of Index."""

    passes_gradient = True

    def __init__(self, key: tuple, shape: tuple[int, ...]):
        self.key, self.shape = key, shape

    def forward(self, x):
        return self.kernels.index_grad(x, self.key, self.shape)

    def backward(self, grad):
        return self.kernels.index(grad, self.key)


class IndexPut(Op):
    """x with `values` at `key`, none of its places named twice."""

    def __init__(self, key: tuple):
        self.key = key

    def forward(self, x, values):
        self.shape = values.shape
        return self.kernels.index_put(x, self.key, values)

    def backward(self, grad):
        k = self.kernels
        return k.index_put(grad, self.key, k.full(self.shape, 0, grad.dtype)), k.index(grad, self.key)


class IndexAdd(Op):
    """x with `values` added at `key`; a place named several times gets every part."""

    passes_gradient = True

    def __init__(self, key: tuple):
        self.key = key

    def forward(self, x, values):
        return self.kernels.index_add(x, self.key, values)

    def backward(self, grad):
        return grad, self.kernels.index(grad, self.key)


@tensor_kernel
def index(x, key):
    """x[key], differentiable in x."""
    return Index(key)(x)


@tensor_kernel
def index_grad(grad, key, shape):
    """The transpose of index, differentiable in grad."""
    return IndexGrad(key, shape)(grad)


@tensor_kernel
def index_put(x, key, values):
    """x with values at key, differentiable in both."""
    return IndexPut(key)(x, values)


def getitem(x: Tensor, key) -> Tensor:
    """x[key] for ints, slices (with steps above 0), None, ..., and bool or integer tensors, arrays, lists or tuples.

    A list or tuple inside the key is an array of indices, however deep: x[:, (0, 2)] are two columns. Ints, slices,
    None and ... are applied first, then the arrays: as in PyTorch, x[0, :, [1, 2]] has the shape of x[0][:, [1, 2]],
    and not that which NumPy gives. On meta a bool tensor is refused: its shape would be that of its values.
    """
    views, arrays = index_keys(x, key)
    if views is not None:
        x = Index(views)(x)
    return x if arrays is None else Index(arrays)(x)


def index_keys(x: Tensor, key) -> tuple[tuple | None, tuple | None]:
    """`key` in two steps: ints, slices, None and ..., which give a view; then arrays. None for a step without work."""
    key = tuple(_plain(k, x) for k in (key if isinstance(key, tuple) else (key,)))
    if not any(_chooses(k) for k in key):
        return key, None
    rest = x.ndim - sum(_consumed(k) for k in key)
    whole = (slice(None),)
    if not any(k is Ellipsis for k in key):
        key = (*key, ...)
    views, places = [], []
    for k in key:
        if k is Ellipsis:
            views.extend(whole * rest)
            places.extend(whole * rest)
        elif _chooses(k):
            views.extend(whole * _consumed(k))
            places.append(k)
        else:
            views.append(k)
            places.extend(whole * (not isinstance(k, int)))
    return (None if all(k == slice(None) for k in views) else tuple(views)), tuple(places)


def _chooses(k) -> bool:
    """Whether the part k of a key is an array or a bool, not one of those that give a view."""
    return type(k) in BY_ARRAY or isinstance(k, bool | np.bool_)


def _consumed(k) -> int:
    """How many dimensions the part k of a key stands for."""
    if k is None or k is Ellipsis or isinstance(k, bool | np.bool_):
        return 0
    return k.ndim if type(k) in BY_ARRAY and k.dtype == bool else 1


def _plain(k, x):
    """A part of a key as an int, slice, None, ..., bool or array of x's device; a list or tuple becomes an array.

    IndexError: it is of other things than ints and bools.
    """
    if type(k) is int or k is None or k is Ellipsis or isinstance(k, bool | np.bool_):
        return k
    if isinstance(k, slice):
        if k.step is not None and k.step < 1:
            raise ValueError(f"a slice with step {k.step}: it must be at least 1; see flip for the reverse order")
        return k
    if isinstance(k, Tensor):
        if k.device != x.device:
            raise ValueError(f"index is on {k.device}, the tensor on {x.device}")
        if k.dtype.kind == "b" and x.device == "meta":
            raise ValueError("a bool tensor on meta has no values: the shape of what it would choose is not known")
        if not k.ndim and k.dtype.kind in "ib":
            return 0 if x.device == "meta" else k.item()
        array = k.data
    else:
        array = _array(k)
    if array.dtype.kind not in "iub":
        raise IndexError(f"{repr(k)} is no index: ints, slices, None, ... and arrays of ints or bools are")
    return array if array.ndim or array.dtype.kind == "b" else int(array)


def _array(k) -> np.ndarray:
    if not isinstance(k, np.ndarray) and hasattr(k, "__index__"):
        with suppress(TypeError):
            k = operator.index(k)
    try:
        array = np.asarray(k)
    except ValueError:
        raise IndexError(f"{repr(k)} is no index: its rows differ in length") from None
    return array if array.size or isinstance(k, np.ndarray) else array.astype(np.int64)  # [] has no ints


# Along a dimension


def _along(name: str, x: Tensor, dim: int, index: Tensor) -> tuple[int, tuple]:
    """The dimension, and the key with which NumPy takes element index[i, j, …] of x along it, at the places i, j, …"""
    if index.dtype.kind != "i":
        raise TypeError(f"{name}: the index must be of dtype int64, not {index.dtype}")
    dim = normalize_dim(dim, x.shape)
    rest, limits = _without(index.shape, dim), _without(x.shape, dim)
    if index.ndim != x.ndim or any(n > m for n, m in zip(rest, limits, strict=True)):
        raise ValueError(f"{name}: an index of shape {index.shape} does not fit a tensor of {x.shape} along dim {dim}")
    x.kernels.check_indices(name, index.data, x.shape[dim])
    key = [np.arange(n).reshape(n, *(1,) * (index.ndim - d - 1)) for d, n in enumerate(index.shape)]
    key[dim] = index.data
    return tuple(key)


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The elements of x at index[…] along `dim`: out[i, j] = x[index[i, j], j] for dim 0, with the shape of index."""
    shape, x, index = index.shape, vector(x), vector(index)
    return reshape(Index(_along("gather", x, dim, index))(x), shape)


def take_along_dim(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """gather, where the other dimensions of x and index broadcast."""
    dim = normalize_dim(dim, x.shape)
    shape = list(np.broadcast_shapes(_without(x.shape, dim), _without(index.shape, dim)))
    whole, chosen = (expand(a, *shape[:dim], a.shape[dim], *shape[dim + 1 :]) for a in (x, index))
    return gather(whole, dim, chosen)


def _without(shape, dim):
    return (*shape[:dim], 1, *shape[dim + 1 :])


def scatter(x: Tensor, dim: int, index: Tensor, src) -> Tensor:
    """x with the elements (or number) src at index[…] along `dim`: out[index[i, j], j] = src[i, j] for dim 0.

    A place that is named twice has one of the values, and no defined gradient.
    """
    return _scattered("scatter", IndexPut, x, dim, index, src)


def scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """x with the elements of src added at index[…] along `dim`: out[index[i, j], j] += src[i, j] for dim 0."""
    return _scattered("scatter_add", IndexAdd, x, dim, index, src)


def _scattered(name, op, x, dim, index, src):
    shape, x, index = x.shape, vector(x), vector(index)
    return reshape(op(_along(name, x, dim, index))(x, _source(name, x, index, src)), shape)


def _source(name, x, index, src):
    if not isinstance(src, Tensor):
        return Tensor(x.kernels.full(index.shape, src, x.dtype))
    src = vector(src)
    if src.ndim != index.ndim or any(n > m for n, m in zip(index.shape, src.shape, strict=True)):
        raise ValueError(f"{name}: a source of shape {src.shape} is too small for an index of shape {index.shape}")
    return src if src.shape == index.shape else Index(tuple(slice(n) for n in index.shape))(src)


def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of x at the places `index` (a vector of int64) along `dim`."""
    if index.ndim > 1 or index.dtype.kind != "i":
        raise ValueError(f"index_select needs a vector of int64, not {index.dtype} of shape {index.shape}")
    if not x.shape:
        if index.numel() != 1:
            raise ValueError(f"index_select: {index.numel()} indices, a tensor without dimensions has one place")
        return reshape(index_select(vector(x), dim, index), ())
    dim = normalize_dim(dim, x.shape)
    x.kernels.check_indices("index_select", index.data, x.shape[dim])
    return Index((*(slice(None),) * dim, x.kernels.reshape(index.data, (index.numel(),))))(x)


def masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """The elements of x where the bool tensor `mask` is true, as a vector; the two broadcast."""
    if mask.dtype.kind != "b":
        raise TypeError(f"masked_select needs a mask of bools, not of {mask.dtype}")
    shape = np.broadcast_shapes(x.shape, mask.shape)
    return getitem(expand(x, shape), expand(mask, shape))


def one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """x (...) of class indices -> (..., num_classes) of int64: 1 at the index, else 0; -1 stands for max(x) + 1."""
    if x.dtype.kind != "i":
        raise TypeError(f"one_hot needs class indices of dtype int64, not {x.dtype}")
    check_int("num_classes", num_classes)
    k = x.kernels
    if num_classes == -1:
        num_classes = int(x.numpy().max()) + 1
    k.check_indices("one_hot", x.data, num_classes)
    places = k.array(np.arange(num_classes), np.int64)
    return cast(Tensor(k.equal(k.reshape(x.data, (*x.shape, 1)), places)), np.int64)
