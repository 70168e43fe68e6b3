"""Every kernel on meta says what kind of call it makes."""

import inspect
from typing import get_args

import numpy as np
import pytest

from minidl.kernels import meta, pooling_windows
from minidl.kernels.meta import MetaArray, updates
from minidl.kernels.meta.record import Kind
from tests.kernels.test_kernels import kernels

X, ROW, IMAGES, WEIGHT = (MetaArray(n, "float32") for n in ((4, 6), (6,), (2, 16, 8, 8), (16, 16, 3, 3)))
CHANNELS, MASK, LABELS = MetaArray((16,), "float32"), MetaArray((4, 6), "bool"), MetaArray((4,), "int64")
CONVOLUTION = (1, 1), (1, 1), (1, 1), 1
HALVES = pooling_windows.regular(8, 2, 2, 0), pooling_windows.regular(8, 2, 2, 0)
SMALL, WHICH = MetaArray((2, 16, 4, 4), "float32"), MetaArray((2, 16, 4, 4), "uint8")
LOG_SUM_EXP = MetaArray((4,), "float32")
ROWS = MetaArray((4, 1), "float32")  # mean, or inverse standard deviation, of each
GATES, WIDE, STATES = (MetaArray(n, "float32") for n in ((2, 4, 24), (24, 6), (2, 4, 6)))

# Of kernels of other arguments than elementwise functions have: what they are called with.
ARGUMENTS = {
    "full": ((4, 6), 0, "float32"), "copy": (X,), "cast": (X, "float64"), "assign": (X, X), "pad": (X, [(1, 1)] * 2, 0),
    "concatenate": ([X, X], 0), "flip": (X, (0,)), "roll": (X, (1,), (0,)), "embedding": (X, LABELS),
    "index": (X, (LABELS,)), "index_assign": (X, (0,), ROW), "index_put": (X, (0,), ROW), "pick": (X, LABELS, -1),
    "pick_grad": (LABELS, LABELS, 6, -1),
    "accumulate": (X, X), "clamp": (X, 0, 1), "isclose": (X, X, 0, 0, False), "where": (MASK, X, X),
    "masked": (X, MASK), "relu_grad": (X, X), "gelu": (X, "none"), "gelu_grad": (X, X, "none"), "dropout": (X, 0.5),
    "dropout_grad": (X, MASK, 0.5), "binary_cross_entropy": (X, X),
    "reshape": (X, (24,)), "permute": (X, (1, 0)), "swap_last": (X,), "broadcast_to": (ROW, (4, 6)),
    "slice_last": (X, 0, 2),
    "conv2d": (IMAGES, WEIGHT, CHANNELS, *CONVOLUTION),
    "conv2d_grad_input": (IMAGES, WEIGHT, IMAGES.shape, *CONVOLUTION),
    "conv2d_grad_weight": (IMAGES, IMAGES, WEIGHT.shape, *CONVOLUTION),
    "channel_sums": (IMAGES,), "squared_norm": (ROW,), "prod_grad": (X, X, 0), "embedding_grad": (X, LABELS, 9),
    "index_add": (X, (0,), ROW), "index_grad": (ROW, (0,), (4, 6)), "cross_entropy": (X, LABELS, -1),
    "cross_entropy_grad": (MetaArray((), "float32"), X, LABELS, -1, True), "max_pool2d": (IMAGES, *HALVES),
    "avg_pool2d": (IMAGES, *HALVES),
    "max_pool2d_grad": (SMALL, WHICH, *HALVES), "max_pool2d_take": (IMAGES, WHICH, *HALVES),
    "avg_pool2d_grad": (SMALL, *HALVES), "cumsum": (X, 0), "argsort": (X, 0, False), "argmax": (X, 0), "argmin": (X, 0),
    **{name: (X, 0, False) for name in ("sum", "max", "min", "any", "all", "prod")},
    **{name: (X, 0) for name in ("softmax", "log_softmax")}, "softmax_grad": (X, X, 0), "log_softmax_grad": (X, X, 0),
    "attention": (X, X, X, 1.0, True), "attention_grad": (X, X, X, X, X, LOG_SUM_EXP, 1.0, True),
    "attention_weights": (X, 1.0, True), "attention_weights_grad": (X, X, 1.0), "layer_norm": (X, ROW, ROW, 0.1),
    "layer_norm_grad": (X, X, ROWS, ROWS, ROW), "rms_norm": (X, ROW, 0.1), "rms_norm_grad": (X, X, ROWS, ROW),
    "channel_moments": (IMAGES,), "batch_norm": (IMAGES, *(CHANNELS,) * 4),
    "batch_norm_sums": (IMAGES, IMAGES, *(CHANNELS,) * 2),
    "batch_norm_grad": (IMAGES, IMAGES, *(CHANNELS,) * 5, 128), "group_norm": (IMAGES, 4, CHANNELS, CHANNELS, 0.1),
    "group_norm_grad": (IMAGES, IMAGES, *(MetaArray((2, 4), "float32"),) * 2, CHANNELS),
    "matmul": (X, MetaArray((6, 5), "float32")),
}  # fmt: skip
KINDS = {
    "product": "matmul attention attention_grad", "convolution": "conv2d conv2d_grad_input conv2d_grad_weight",
    "copy": "full copy cast assign pad concatenate flip roll embedding index index_assign index_put pick pick_grad",
    "view": "reshape permute swap_last broadcast_to slice_last",
    "reduction": """sum max min any all prod prod_grad argmax argmin argsort cumsum squared_norm channel_sums max_pool2d
        max_pool2d_grad max_pool2d_take avg_pool2d avg_pool2d_grad cross_entropy cross_entropy_grad embedding_grad
        index_add index_grad""",
    "normalisation": """softmax softmax_grad log_softmax log_softmax_grad attention_weights attention_weights_grad
        layer_norm layer_norm_grad rms_norm rms_norm_grad channel_moments batch_norm batch_norm_sums batch_norm_grad
        group_norm group_norm_grad""",
    "update": " ".join(updates.__all__),
}  # fmt: skip
KIND = {name: kind for kind, names in KINDS.items() for name in names.split()}  # of all others, elementwise
NO_CALLS = {
    "array", "drawn", "empty", "extent", "is_contiguous", "to_host", "to_numpy", "from_device", "from_scalar",
    "check_indices",
}  # fmt: skip
SEVERAL = {"linear", "rnn", "rnn_grad", "lstm", "lstm_grad", "gru", "gru_grad"}  # calls, of several kinds


def arguments(name):
    """What `name` may be called with."""
    if name in updates.__all__:
        parameters = inspect.signature(getattr(meta, name)).parameters
        arrays = {"parameter", "gradient", "mean", "square", "largest", "velocity", "total", "step_square"}
        return [ROW if parameter in arrays else 0.5 for parameter in parameters]
    elementwise = {("x",): (X,), ("a", "b"): (X, ROW), ("target", "number"): (X, 0.5)}
    return ARGUMENTS.get(name) or elementwise[tuple(inspect.signature(getattr(meta, name)).parameters)]


@pytest.mark.parametrize("name", sorted(kernels(meta).keys() - NO_CALLS - SEVERAL))
def test_a_kernel_makes_one_call_of_its_kind(name):
    with meta.record() as calls:
        getattr(meta, name)(*arguments(name))
    (call,) = calls
    assert (call.name, call.kind) == (name, KIND.get(name, "elementwise"))
    assert call.kind in get_args(Kind) and np.dtype(call.dtype)
    assert (call.kind == "view") == (call.bytes_read + call.bytes_written == 0)
    assert call.flops == 0 or call.kind not in ("copy", "view")
    assert bool(call.algorithm) == (call.kind == "convolution")


def test_every_kind_has_its_kernels():
    assert {*KINDS, "elementwise"} == set(get_args(Kind))
    assert set(KIND) | set(ARGUMENTS) | NO_CALLS | SEVERAL <= kernels(meta).keys()


def test_an_index_without_arrays_is_a_view():
    with meta.record() as calls:
        meta.index(X, (0, slice(1, 3)))
    assert [call.kind for call in calls] == ["view"]


def test_a_linear_layer_and_a_recurrent_one_are_products_and_what_is_elementwise():
    with meta.record() as calls:
        meta.linear(X, MetaArray((5, 6), "float32"), MetaArray((5,), "float32"))
        meta.lstm(GATES, WIDE, None, None, None)
        meta.lstm_grad(STATES, STATES, WIDE, WIDE, None, None, STATES, GATES, STATES, True)
    kinds = {"matmul": "product", "sum": "reduction", "reshape": "view", "swap_last": "view"}
    assert all(call.kind == kinds.get(call.name, "elementwise") for call in calls)
    assert {call.kind for call in calls} == {"product", "reduction", "view", "elementwise"}
