"""minidl: a deep-learning framework small enough to read, that trains in parallel.

The names here are PyTorch's. `minidl.nn`, `minidl.optim`, `minidl.data` and `minidl.metrics` come with it;
`minidl.models` and `minidl.parallel` are imported when asked for.
"""

from minidl import autograd, data, metrics, nn, ops, optim
from minidl.creation import arange, full, ones, ones_like, rand, randn, randn_like, tensor, zeros, zeros_like
from minidl.io import load, save
from minidl.ops import (
    abs,
    amax,
    argmax,
    cat,
    conv1d,
    conv2d,
    conv_transpose1d,
    conv_transpose2d,
    dropout,
    embedding,
    exp,
    flatten,
    layer_norm,
    log,
    log_softmax,
    matmul,
    max,
    max_pool2d,
    maximum,
    mean,
    permute,
    relu,
    reshape,
    sigmoid,
    softmax,
    split,
    sqrt,
    squeeze,
    stack,
    sum,
    tanh,
    transpose,
    unsqueeze,
    where,
)
from minidl.random import manual_seed
from minidl.tensor import (
    Op,
    Tensor,
    bool_,
    device,
    enable_grad,
    float32,
    float64,
    int64,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
