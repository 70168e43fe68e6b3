"""Every differentiable op once or more, as (name, function, inputs): the tests of ops run over this list.

Inputs are made by a function of a generator, so that no test shares arrays with another.
"""

import numpy as np

import minidl
from minidl import ops
from minidl.ops.convolution import Conv2dGradWeight


def floats(*shape):
    return lambda g: g.standard_normal(shape)


def positive(*shape):
    return lambda g: g.uniform(0.5, 2, shape)


def fraction(*shape):
    return lambda g: g.uniform(0.1, 0.9, shape)


def away_from_zero(*shape):
    return lambda g: g.uniform(0.2, 2, shape) * g.choice([-1, 1], shape)


def distinct(*shape):
    """Elements at least 0.1 apart, so that the largest one stays the largest under a finite difference."""
    return lambda g: g.permutation(int(np.prod(shape))).reshape(shape) * 0.1


def integers_apart(*shape):
    """Elements within 0.3 of a whole number, where nothing jumps."""
    return lambda g: g.integers(-3, 4, shape) + g.uniform(-0.3, 0.3, shape)


def ints(high, *shape):
    return lambda g: g.integers(high, size=shape)


def bools(*shape):
    return lambda g: g.random(shape) < 0.5


def fixed(x):
    """Running statistics for x (batch, channels, ...), the same in every call."""
    return minidl.tensor(np.linspace(0.5, 2, x.shape[1]), x.dtype, device=x.device)


ROWS = slice(1, 3)
PICK = np.array([[0, 2], [2, 2]])
ORDER = np.array([[0, 2, 1], [1, 0, 2]])
MASK = np.array([[True, False, True], [False, False, True]])

CASES = [
    ("add", ops.add, floats(3, 4), floats(3, 4)),
    ("add, broadcast", ops.add, floats(3, 1), floats(2, 1, 4)),
    ("add, to a scalar", ops.add, floats(), floats(2, 3)),
    ("subtract", ops.subtract, floats(3, 1), floats(4)),
    ("multiply", ops.multiply, floats(2, 3), floats(3)),
    ("multiply, by a number", lambda x: 2.5 * x, floats(2, 3)),
    ("divide", ops.divide, floats(2, 3), away_from_zero(2, 1)),
    ("divide, a number", lambda x: 2 / x, away_from_zero(2, 3)),
    ("negative", ops.negative, floats(3)),
    ("power", lambda x: x**3, floats(2, 3)),
    ("power, 0", lambda x: x**0, floats(2, 3)),
    ("power, root", lambda x: x**0.5, positive(2, 3)),
    ("power, of a number", lambda x: 2.5**x, floats(2, 3)),
    ("power, of a tensor", ops.power, positive(2, 3), floats(3)),
    ("remainder", ops.remainder, floats(2, 3), positive(3)),
    ("reciprocal", ops.reciprocal, away_from_zero(2, 3)),
    ("square", ops.square, floats(2, 3)),
    ("add, of two dtypes", lambda x, y: x + ops.cast(y, "float64").sum() + y, floats(2, 3), floats(2, 3)),
    ("exp", ops.exp, floats(2, 3)),
    ("erf", ops.erf, floats(2, 3)),
    ("log", ops.log, positive(2, 3)),
    ("sqrt", ops.sqrt, positive(2, 3)),
    ("rsqrt", ops.rsqrt, positive(2, 3)),
    ("expm1", ops.expm1, floats(2, 3)),
    ("log1p", ops.log1p, positive(2, 3)),
    ("log2", ops.log2, positive(2, 3)),
    ("sin", ops.sin, floats(2, 3)),
    ("cos", ops.cos, floats(2, 3)),
    ("erf", ops.erf, floats(2, 3)),
    ("sign", ops.sign, away_from_zero(2, 3)),
    ("floor", lambda x: ops.floor(x + 0.5), integers_apart(2, 3)),
    ("ceil", lambda x: ops.ceil(x + 0.5), integers_apart(2, 3)),
    ("round", ops.round, integers_apart(2, 3)),
    ("abs", ops.abs, away_from_zero(2, 3)),
    ("maximum", ops.maximum, floats(2, 3), floats(3)),
    ("minimum", ops.minimum, floats(2, 3), floats(3)),
    ("clamp", lambda x: x.clamp(-0.5, 0.7), floats(2, 6)),
    ("clamp, by tensors", ops.clamp, floats(2, 3), floats(3), floats(2, 1)),
    ("lerp", ops.lerp, floats(2, 3), floats(3), floats(2, 1)),
    ("masked_fill", lambda x, m: x.masked_fill(m, 0.5), floats(2, 3), bools(3)),
    ("where", ops.where, bools(2, 3), floats(2, 3), floats(3)),
    ("relu", ops.relu, away_from_zero(4, 3)),
    ("leaky_relu", lambda x: ops.leaky_relu(x, 0.2), away_from_zero(4, 3)),
    ("prelu", ops.prelu, away_from_zero(4, 3), floats(1)),
    ("prelu, channels", ops.prelu, away_from_zero(2, 3, 2, 2), floats(3)),
    ("elu", lambda x: ops.elu(x, 0.7), away_from_zero(4, 3)),
    ("silu", ops.silu, floats(4, 3)),
    ("swiglu", ops.swiglu, floats(4, 6)),
    ("softplus", ops.softplus, floats(4, 3)),
    ("softplus, threshold", lambda x: ops.softplus(x, 0.5, 0.8), floats(4, 3)),
    ("logsigmoid", ops.logsigmoid, floats(4, 3)),
    ("mish", ops.mish, floats(4, 3)),
    ("tanh", ops.tanh, floats(2, 3)),
    ("sigmoid", ops.sigmoid, floats(2, 3)),
    ("gelu", ops.gelu, floats(4, 3)),
    ("gelu, tanh", lambda x: ops.gelu(x, "tanh"), floats(4, 3)),
    ("sum", ops.sum, floats(2, 3)),
    ("sum, dim", lambda x: x.sum(1), floats(2, 3, 4)),
    ("sum, dims kept", lambda x: x.sum((0, -1), keepdim=True), floats(2, 3, 4)),
    ("mean", ops.mean, floats(2, 3)),
    ("mean, dim", lambda x: x.mean(0), floats(2, 3)),
    ("var", lambda x: x.var(-1, correction=0), floats(2, 3)),
    ("std", lambda x: x.std((0, 2), keepdim=True), floats(2, 3, 2)),
    ("prod", ops.prod, floats(2, 3)),
    ("prod, dim", lambda x: x.prod(0, keepdim=True), floats(3, 2)),
    ("prod, with a zero", lambda x: (x - x[0, 0]).prod(0), floats(3, 2)),
    ("logsumexp", lambda x: x.logsumexp((0, -1)), floats(2, 3, 2)),
    ("norm", ops.norm, floats(2, 3)),
    ("norm, 3, dim", lambda x: x.norm(3, 1), floats(2, 3)),
    ("norm, 1", lambda x: x.norm(1, 0, True), away_from_zero(2, 3)),
    ("norm, inf", lambda x: x.norm(float("inf"), 1), away_from_zero(2, 3)),
    ("norm, 0", lambda x: x.norm(0, 1, True), away_from_zero(2, 3)),
    ("cumsum", lambda x: x.cumsum(1), floats(2, 3)),
    ("max", ops.max, distinct(2, 3)),
    ("min", ops.min, distinct(2, 3)),
    ("min, dim", lambda x: x.min(0, keepdim=True).values, distinct(2, 3)),
    ("amin", lambda x: x.amin((0, 2)), distinct(3, 2, 2)),
    ("sort", lambda x: x.sort(0, descending=True).values, distinct(4, 2)),
    ("topk", lambda x: x.topk(2, largest=False)[0], distinct(2, 4)),
    ("max, dim", lambda x: x.max(1)[0], distinct(2, 3)),
    ("max, first dim kept", lambda x: x.max(-3, keepdim=True)[0], distinct(3, 2, 2)),
    ("amax", lambda x: x.amax((0, 2)), distinct(3, 2, 2)),
    ("reshape", lambda x: x.reshape(3, -1), floats(2, 6)),
    ("flatten", lambda x: ops.flatten(x, 1), floats(2, 3, 2)),
    ("squeeze", ops.squeeze, floats(2, 1, 3)),
    ("unsqueeze", lambda x: x.unsqueeze(1), floats(2, 3)),
    ("permute", lambda x: x.permute(2, 0, 1), floats(2, 3, 4)),
    ("transpose", lambda x: x.transpose(0, -1), floats(2, 3, 4)),
    ("expand", lambda x: x.expand(2, 3, 4), floats(3, 1)),
    ("movedim", lambda x: x.movedim((0, 1), (-1, 0)), floats(2, 3, 4)),
    ("clone", ops.clone, floats(2, 3)),
    ("contiguous", lambda x: x.T.contiguous(), floats(2, 3)),
    ("narrow", lambda x: x.narrow(1, 1, 2), floats(2, 4)),
    ("chunk", lambda x: ops.cat(x.chunk(3)[1:]), floats(5, 2)),
    ("unbind", lambda x: x.unbind(1)[1], floats(2, 3)),
    ("repeat", lambda x: x.repeat(2, 1, 3), floats(3, 2)),
    ("repeat_interleave", lambda x: x.repeat_interleave(3, 1), floats(2, 3)),
    ("tril", lambda x: x.tril(1), floats(2, 3, 4)),
    ("triu", lambda x: x.triu(-1), floats(4, 3)),
    ("diagonal", lambda x: x.diagonal(1, 2, 0), floats(3, 2, 3)),
    ("diag", lambda x: x.diag(-1), floats(3)),
    ("diag, of a matrix", lambda x: x.diag(1), floats(3, 4)),
    ("flip", lambda x: x.flip(0, 2), floats(2, 3, 2)),
    ("roll", lambda x: x.roll((1, -2), (0, 1)), floats(3, 4)),
    ("roll, all", lambda x: x.roll(2), floats(3, 2)),
    ("pad", lambda x: ops.pad(x, (1, 2)), floats(2, 3)),
    ("pad, and crop", lambda x: ops.pad(x, (1, 2, 0, -1), value=0.5), floats(2, 3, 2)),
    ("pad, reflect", lambda x: ops.pad(x, (1, 2), "reflect"), floats(2, 3)),
    ("gather", lambda x, i: x.gather(1, i), floats(2, 3), ints(3, 2, 4)),
    ("scatter", lambda x, v: x.scatter(1, minidl.tensor(ORDER, device=x.device), v), floats(2, 3), floats(2, 3)),
    ("scatter_add", lambda x, i, v: x.scatter_add(0, i, v), floats(2, 3), ints(2, 4, 3), floats(4, 3)),
    ("index_select", lambda x, i: x.index_select(1, i), floats(2, 3), ints(3, 4)),
    ("take_along_dim", lambda x, i: x.take_along_dim(i, 1), floats(2, 3), ints(3, 1, 4)),
    ("cat", lambda x, y: ops.cat([x, y], 1), floats(2, 3), floats(2, 1)),
    ("stack", lambda x, y: ops.stack([x, y], -1), floats(2, 3), floats(2, 3)),
    ("split", lambda x: ops.cat(ops.split(x, [1, 3], 1)[::-1], 1), floats(2, 4)),
    ("index, slices", lambda x: x[ROWS, ..., 0], floats(4, 2, 3)),
    ("index, arrays", lambda x: x[PICK, ROWS], floats(4, 3)),
    ("index, repeated", lambda x: x[PICK], floats(4, 3)),
    ("index, an int and a list", lambda x: x[0, :, [1, 2, 1]], floats(2, 3, 3)),
    ("index, a tuple", lambda x: x[:, (0, 2, 0)], floats(2, 3)),
    ("index, a tuple beside an array", lambda x: x[(1, 0, 1), PICK[:, 1:]], floats(2, 3)),
    ("index, a mask", lambda x: x[MASK, 1:], floats(2, 3, 2)),
    ("matmul", ops.matmul, floats(2, 3), floats(3, 4)),
    ("matmul, batched", ops.matmul, floats(2, 1, 2, 3), floats(4, 3, 2)),
    ("matmul, many by one", ops.matmul, floats(2, 2, 3), floats(3, 4)),
    ("matmul, vectors", ops.matmul, floats(3), floats(3)),
    ("matmul, by a vector", ops.matmul, floats(2, 2, 3), floats(3)),
    ("matmul, of a vector", ops.matmul, floats(3), floats(2, 3, 2)),
    ("bmm", ops.bmm, floats(2, 2, 3), floats(2, 3, 2)),
    ("dot", ops.dot, floats(3), floats(3)),
    ("outer", ops.outer, floats(3), floats(2)),
    ("einsum, a product", lambda *a: ops.einsum("...ij,...jk->...ik", *a), floats(2, 2, 3), floats(3, 2)),
    ("einsum, of three", lambda *a: ops.einsum("bn,anm,bm->ba", *a), floats(2, 3), floats(2, 3, 2), floats(2, 2)),
    ("einsum, a diagonal", lambda x: ops.einsum("iji->j", x), floats(3, 2, 3)),
    ("linear", ops.linear, floats(5, 3), floats(2, 3), floats(2)),
    ("linear, no bias", ops.linear, floats(2, 2, 3), floats(2, 3)),
    ("linear, of a vector", ops.linear, floats(3), floats(2, 3), floats(2)),
    ("softmax", lambda x: ops.softmax(x, -1), floats(2, 4)),
    ("softmax, first dim", lambda x: ops.softmax(x, 0), floats(2, 4)),
    ("log_softmax", lambda x: ops.log_softmax(x, -1), floats(2, 4)),
    ("cross_entropy_sum", ops.cross_entropy_sum, floats(5, 4), ints(4, 5)),
    ("cross_entropy_sum, sequence", lambda x, y: ops.cross_entropy_sum(x, y, 2), floats(2, 3, 4), ints(4, 2, 3)),
    ("pick", lambda x, y: ops.pick(x, y, 2), floats(2, 3, 4), ints(4, 2, 3)),
    ("binary_cross_entropy", ops.binary_cross_entropy, fraction(2, 3), fraction(2, 3)),
    ("layer_norm", lambda x, w, b: ops.layer_norm(x, 4, w, b), floats(2, 3, 4), floats(4), floats(4)),
    ("layer_norm, two dims", lambda x, w: ops.layer_norm(x, (3, 4), w), floats(2, 3, 4), floats(3, 4)),
    ("layer_norm, no weight", lambda x, b: ops.layer_norm(x, 4, None, b), floats(2, 3, 4), floats(4)),
    ("rms_norm", lambda x, w: ops.rms_norm(x, 4, w, 0.1), floats(2, 3, 4), floats(4)),
    ("rms_norm, no weight", lambda x: ops.rms_norm(x, (3, 2)), floats(2, 3, 2)),
    ("group_norm", lambda x, w, b: ops.group_norm(x, 2, w, b), floats(2, 4, 2, 3), floats(4), floats(4)),
    ("group_norm, no weight", lambda x: ops.group_norm(x, 1), floats(2, 4)),
    ("batch_norm", lambda x, w, b: ops.batch_norm(x, None, None, w, b, training=True),
     floats(3, 2, 2, 3), floats(2), floats(2)),
    ("batch_norm, no weight", lambda x: ops.batch_norm(x, None, None, training=True), floats(4, 3)),
    ("batch_norm, running statistics", lambda x, w, b: ops.batch_norm(x, fixed(x), fixed(x), w, b),
     floats(3, 2, 2), floats(2), floats(2)),
    ("no dimensions, softmax", lambda x: x.softmax(0) * x.log_softmax(-1) * x, floats()),
    ("no dimensions, in order", lambda x: x.sort()[0] * x.topk(1, 0)[0] * x.cumsum(-1), floats()),
    ("no dimensions, moved", lambda x: x.flip(0) * x.transpose(0, -1) * x.movedim(-1, 0), floats()),
    ("no dimensions, gather", lambda x, i: x.gather(0, i).sum() * x.index_select(-1, i), floats(), ints(1, 1)),
    ("no dimensions, scatter", lambda x, i, v: x.scatter(0, i, v) * x.scatter_add(-1, i, v),
     floats(), ints(1), floats()),
    ("embedding", ops.embedding, ints(5, 2, 3), floats(5, 4)),
    ("attention", ops.scaled_dot_product_attention, floats(2, 2, 3, 4), floats(2, 2, 5, 4), floats(2, 2, 5, 4)),
    ("attention, causal", lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, is_causal=True),
     floats(2, 2, 3, 4), floats(2, 2, 3, 4), floats(2, 2, 3, 4)),
    ("attention, masked", lambda q, k, v, m: ops.scaled_dot_product_attention(q, k, v, m, scale=-0.7),
     floats(2, 2, 3, 4), floats(2, 2, 5, 4), floats(2, 2, 5, 3), floats(2, 1, 3, 5)),
    ("attention, bools", lambda q, k, v, m: ops.scaled_dot_product_attention(q, k, v, m > 0),
     floats(3, 4), floats(2, 5, 4), floats(5, 4), lambda g: np.tri(3, 5, 0, bool)[::-1] * 1),
    ("attention, grouped", lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
     floats(2, 4, 3, 4), floats(2, 2, 3, 4), floats(2, 2, 3, 4)),
    ("attention, window", lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, is_causal=True, window=2),
     floats(2, 4, 3), floats(2, 5, 3), floats(2, 5, 3)),
    ("attention, packed", lambda x: ops.packed_attention(x, is_causal=True), floats(2, 4, 3, 2, 3)),
    ("rnn", ops.rnn, floats(3, 2, 4), floats(3, 4), floats(3, 3), floats(3), floats(3), floats(2, 3)),
    ("rnn, relu", lambda x, w, v: ops.rnn(x, w, v, nonlinearity="relu"), floats(3, 2, 4), floats(3, 4), floats(3, 3)),
    ("lstm", lambda *a: ops.cat([ops.reshape(y, -1) for y in ops.lstm(*a[:5], a[5:])]),
     floats(3, 2, 4), floats(12, 4), floats(12, 3), floats(12), floats(12), floats(2, 3), floats(2, 3)),
    ("lstm, bare", lambda *a: ops.lstm(*a)[0], floats(3, 2, 4), floats(12, 4), floats(12, 3)),
    ("lstm, one step", lambda *a: ops.lstm(*a)[1], floats(1, 2, 4), floats(12, 4), floats(12, 3)),
    ("gru", ops.gru, floats(3, 2, 4), floats(9, 4), floats(9, 3), floats(9), floats(9), floats(2, 3)),
    ("gru, bare", ops.gru, floats(3, 2, 4), floats(9, 4), floats(9, 3)),
    ("conv2d", ops.conv2d, floats(2, 3, 5, 4), floats(4, 3, 3, 2), floats(4)),
    ("conv2d, strided and padded", lambda x, w: ops.conv2d(x, w, stride=(2, 1), padding=(1, 2)),
     floats(2, 2, 5, 6), floats(3, 2, 3, 3)),
    ("conv2d, dilated", lambda x, w: ops.conv2d(x, w, padding=(1, 3), dilation=(2, 3)),
     floats(2, 2, 5, 4), floats(3, 2, 3, 2)),
    ("conv2d, groups", lambda *a: ops.conv2d(*a, stride=2, padding=1, groups=2),
     floats(2, 4, 4, 3), floats(6, 2, 3, 2), floats(6)),
    ("conv2d, depthwise", lambda *a: ops.conv2d(*a, padding=1, groups=3),
     floats(2, 3, 4, 3), floats(6, 1, 3, 3), floats(6)),
    ("conv2d, same", lambda *a: ops.conv2d(*a, padding="same"), floats(2, 2, 4, 5), floats(3, 2, 2, 3), floats(3)),
    ("conv2d, one image", ops.conv2d, floats(3, 5, 4), floats(4, 3, 3, 2), floats(4)),
    ("conv2d, its gradient by the weight", lambda y, x: Conv2dGradWeight((4, 1, 3, 2), (2, 1), (1, 0), (1, 2), 2)(y, x),
     floats(3, 4, 2, 3), floats(3, 2, 4, 5)),
    ("conv1d", lambda *a: ops.conv1d(*a, stride=2, padding=1), floats(2, 3, 7), floats(4, 3, 3), floats(4)),
    ("conv1d, groups", lambda *a: ops.conv1d(*a, dilation=2, groups=3), floats(2, 3, 7), floats(6, 1, 3), floats(6)),
    ("conv_transpose1d", lambda *a: ops.conv_transpose1d(*a, stride=3, padding=1, output_padding=2, groups=2),
     floats(2, 4, 3), floats(4, 1, 3), floats(2)),
    ("conv_transpose2d", ops.conv_transpose2d, floats(2, 3, 4, 3), floats(3, 2, 3, 2), floats(2)),
    ("conv_transpose2d, all options", lambda *a: ops.conv_transpose2d(*a, (2, 1), (1, 2), (1, 0), 2, (1, 2)),
     floats(2, 4, 3, 4), floats(4, 3, 3, 2), floats(6)),
    ("conv_transpose2d, more beyond the stride", lambda *a: ops.conv_transpose2d(*a, (1, 2), (2, 0), (2, 3), 1, (3, 4)),
     floats(2, 2, 3, 2), floats(2, 2, 2, 2), floats(2)),
    ("conv_transpose1d, more beyond the stride", lambda *a: ops.conv_transpose1d(*a, output_padding=2, dilation=3),
     floats(2, 2, 4), floats(2, 1, 2)),
    ("max_pool2d", lambda x: ops.max_pool2d(x, 2), distinct(2, 3, 4, 6)),
    ("max_pool2d, overlapping", lambda x: ops.max_pool2d(x, 3, 2, 1), distinct(2, 2, 5, 6)),
    ("max_pool2d, dilated", lambda x: ops.max_pool2d(x, (2, 3), 1, (0, 2), (1, 2), True), distinct(2, 2, 4, 5)),
    ("max_pool1d", lambda x: ops.max_pool1d(x, 3, 2, 1), distinct(2, 2, 7)),
    ("avg_pool2d", lambda x: ops.avg_pool2d(x, 2), floats(2, 3, 4, 6)),
    ("avg_pool2d, overlapping", lambda x: ops.avg_pool2d(x, 3, 2, 1, True, False), floats(2, 2, 4, 7)),
    ("avg_pool2d, over the end", lambda x: ops.avg_pool2d(x, 3, 2, 1, True), floats(2, 2, 4, 7)),
    ("avg_pool1d", lambda x: ops.avg_pool1d(x, 3, 2, 1), floats(2, 2, 7)),
    ("adaptive_avg_pool2d", lambda x: ops.adaptive_avg_pool2d(x, (3, None)), floats(2, 2, 5, 4)),
    ("adaptive_avg_pool2d, more than there are", lambda x: ops.adaptive_avg_pool2d(x, (3, 5)), floats(2, 2, 2, 4)),
    ("adaptive_avg_pool1d", lambda x: ops.adaptive_avg_pool1d(x, 3), floats(2, 2, 5)),
    ("adaptive_max_pool2d", lambda x: ops.adaptive_max_pool2d(x, 3), distinct(2, 2, 5, 4)),
    ("cast", lambda x: ops.cast(ops.cast(x, "float64"), x.dtype), floats(2, 3)),
]  # fmt: skip

NAMES = [name for name, *_ in CASES]


def arrays(makers):
    generator = np.random.default_rng(1)
    return [make(generator) for make in makers]
