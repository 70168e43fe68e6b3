"""minidl: a deep-learning framework small enough to read, that trains in parallel.

The names are PyTorch's. Here are tensors and the functions of them, `no_grad` and its kin, `save` and `load`, `capture`
for static graphs, and `Op` for ops of your own. With it come

    autograd            gradients as values, of any order; hooks
    nn, optim, data     layers and losses; optimizers and schedules; data sets and their loader
    metrics             accuracy and its kin
    testing             derivatives held to finite differences
    cuda                the GPU: whether there is one, and its memory

and these are imported when asked for:

    models, parallel    models by name; training spread over workers
    monitor, profile    logs of a run; what each block of a model costs
"""

from minidl import autograd, cuda, data, metrics, nn, ops, optim, testing
from minidl.creation import (
    arange,
    device,
    empty,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    tensor,
    tril_indices,
    triu_indices,
    zeros,
    zeros_like,
)
from minidl.dlpack import from_dlpack
from minidl.dtypes import bool_, float32, float64, int64
from minidl.grad_mode import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from minidl.io import load, save
from minidl.kernels.cpu.fast.threads import get_num_threads, set_num_threads
from minidl.op import Op
from minidl.ops import (
    abs,
    add,
    all,
    allclose,
    amax,
    amin,
    any,
    argmax,
    argmin,
    argsort,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    bmm,
    cat,
    ceil,
    chunk,
    clamp,
    clone,
    conv1d,
    conv2d,
    conv_transpose1d,
    conv_transpose2d,
    cos,
    cumsum,
    diag,
    diagonal,
    dot,
    dropout,
    einsum,
    embedding,
    eq,
    equal,
    erf,
    exp,
    expm1,
    flatten,
    flip,
    floor,
    floor_divide,
    gather,
    ge,
    gt,
    index_select,
    isclose,
    isfinite,
    isinf,
    isnan,
    layer_norm,
    le,
    lerp,
    log,
    log1p,
    log2,
    log_softmax,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    logsumexp,
    lt,
    masked_fill,
    masked_select,
    matmul,
    max,
    max_pool2d,
    maximum,
    mean,
    min,
    minimum,
    movedim,
    narrow,
    ne,
    norm,
    outer,
    permute,
    prod,
    reciprocal,
    relu,
    remainder,
    repeat_interleave,
    reshape,
    roll,
    round,
    rsqrt,
    scatter,
    scatter_add,
    sigmoid,
    sign,
    sin,
    softmax,
    sort,
    split,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    sum,
    take_along_dim,
    tanh,
    topk,
    transpose,
    tril,
    triu,
    unbind,
    unsqueeze,
    var,
    where,
)
from minidl.random import manual_seed
from minidl.static import capture
from minidl.tensor import Tensor

bool = bool_
sub, mul, div, neg, pow, clip = ops.subtract, ops.multiply, ops.divide, ops.negative, ops.power, ops.clamp
