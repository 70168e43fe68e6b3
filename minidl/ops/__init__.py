"""The operations: one family a file, forward and backward beside each other, as plain functions on tensors.

An op touches arrays only through `self.kernels`, so it runs on every device.
"""

from minidl.ops import elementary as _elementary  # noqa: F401  makes backwards differentiable
from minidl.ops import in_place as _in_place  # noqa: F401  puts x += y, x[i] = y and the like on Tensor
from minidl.ops import tensor_methods as _tensor_methods  # noqa: F401  puts the operators on Tensor
from minidl.ops.activation import (
    elu,
    gelu,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    sigmoid,
    silu,
    softplus,
    swiglu,
    tanh,
)
from minidl.ops.arithmetic import (
    add,
    divide,
    floor_divide,
    multiply,
    negative,
    power,
    reciprocal,
    remainder,
    square,
    subtract,
)
from minidl.ops.attention import packed_attention, scaled_dot_product_attention
from minidl.ops.batch_norm import batch_norm
from minidl.ops.choice import clamp, lerp, masked_fill, maximum, minimum, where
from minidl.ops.comparison import (
    allclose,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    eq,
    equal,
    ge,
    gt,
    isclose,
    isfinite,
    isinf,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    ne,
)
from minidl.ops.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from minidl.ops.dropout import dropout, dropout2d
from minidl.ops.einsum import einsum
from minidl.ops.elementwise import (
    abs,
    ceil,
    cos,
    erf,
    exp,
    expm1,
    floor,
    log,
    log1p,
    log2,
    round,
    rsqrt,
    sign,
    sin,
    sqrt,
)
from minidl.ops.embedding import embedding
from minidl.ops.extremes import amax, amin, argmax, argmin, argsort, max, min, sort, topk
from minidl.ops.indexing import (
    gather,
    getitem,
    index_select,
    masked_select,
    one_hot,
    scatter,
    scatter_add,
    take_along_dim,
)
from minidl.ops.joining import cat, chunk, narrow, repeat, repeat_interleave, split, stack, unbind
from minidl.ops.losses import binary_cross_entropy, cross_entropy_sum, pick
from minidl.ops.matmul import bmm, dot, linear, matmul, outer
from minidl.ops.normalization import group_norm, layer_norm, rms_norm
from minidl.ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)
from minidl.ops.rearranging import diag, diagonal, flip, pad, roll, tril, triu
from minidl.ops.recurrent import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell
from minidl.ops.reduction import all, any, cumsum, logsumexp, mean, norm, prod, std, sum, var
from minidl.ops.shape import (
    cast,
    clone,
    contiguous,
    expand,
    expand_as,
    flatten,
    movedim,
    permute,
    reshape,
    squeeze,
    to,
    transpose,
    unsqueeze,
)
from minidl.ops.softmax import log_softmax, softmax
