"""A backward in two halves: the very bits of a whole one, and which of its work is in which half."""

import itertools
from collections import Counter

import numpy as np
import pytest

import minidl
from minidl import models, nn
from minidl.kernels import meta
from minidl.models import builder
from minidl.op import Op
from minidl.parallel import blocks
from minidl.parallel.block_profile import flops
from minidl.parallel.blocks import recompute_attention
from minidl.parallel.chain_profile import chain_of
from minidl.storage import on_meta


def draw(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


class First(nn.Module):
    """The first result of a recurrent layer, or of attention of a sequence to itself."""

    def __init__(self, layer, inputs=1, **options):
        self.layer, self.inputs, self.options = layer, inputs, options

    def forward(self, x):
        return self.layer(*(x,) * self.inputs, **self.options)[0]


class Residual(nn.Module):
    def __init__(self, width):
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(minidl.ops.relu(self.up(self.norm(x))))


class Twice(nn.Module):
    """Uses its parameters several times: in products, in a sum and elementwise; and one result twice."""

    def __init__(self, width):
        self.layer, self.scale = nn.Linear(width, width), nn.Parameter((width,), init=nn.init.constant(1.5))
        self.apart = nn.Parameter((width, width), init=nn.init.normal(0.0, 0.1))

    def forward(self, x):
        y = self.layer(self.layer(x) * self.scale) + self.layer.bias * self.scale
        return y @ (self.apart @ self.apart) + y + minidl.ops.linear(x, self.layer.weight)


class Apart(nn.Module):
    """Adds what is made of parameters alone."""

    def __init__(self, width):
        self.table, self.layer = nn.Embedding(7, width), nn.Linear(width, width)

    def forward(self, x):
        return x + minidl.ops.tanh(self.layer(self.table(minidl.tensor([2])))).reshape(-1)


class Frozen(nn.Module):
    def __init__(self, width):
        self.fixed, self.layer = nn.Linear(width, width), nn.Linear(width, width)
        for parameter in (*self.fixed.parameters(), self.layer.bias):
            parameter.requires_grad_(False)

    def forward(self, x):
        return self.layer(self.fixed(x))


def attention(**options):
    return lambda: First(nn.MultiheadAttention(16, 4, batch_first=True, **options), 3, need_weights=False)


def selective(build):
    def built():
        block = build()
        recompute_attention(block, True)
        return block

    return built


ROWS = {
    "linear": lambda: nn.Linear(16, 24),
    "linear without bias": lambda: nn.Linear(16, 24, bias=False),
    "layer norm": lambda: nn.LayerNorm(16),
    "rms norm": lambda: nn.RMSNorm(16),
    "batch norm": lambda: nn.BatchNorm1d(16),
    "dropout": lambda: nn.Dropout(0.3),
    "nothing": nn.Identity,
    "residual": lambda: Residual(16),
    "parameters used twice": lambda: Twice(16),
    "parameters alone": lambda: Apart(16),
    "frozen": lambda: Frozen(16),
    "several in one": lambda: nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 16)),
}
IMAGES = {
    "conv": lambda: nn.Conv2d(16, 8, 3, padding=1),
    "conv by Winograd": lambda: nn.Conv2d(16, 16, 3, padding=1),
    "conv of stride 2": lambda: nn.Conv2d(16, 8, 3, 2, padding=1, bias=False),
    "conv 1x1": lambda: nn.Conv2d(16, 8, 1),
    "depthwise conv": lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16),
    "transposed conv": lambda: nn.ConvTranspose2d(16, 8, 2, 2),
    "batch norm": lambda: nn.BatchNorm2d(16),
    "group norm": lambda: nn.GroupNorm(4, 16),
    "conv, norm and pool": lambda: nn.Sequential(
        nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
    ),
}
SEQUENCES = {
    "lstm": lambda: First(nn.LSTM(16, 12)),
    "two grus both ways": lambda: First(nn.GRU(16, 12, num_layers=2, bidirectional=True)),
    "rnn": lambda: First(nn.RNN(16, 12)),
    "attention": attention(),
    "attention with dropout": attention(dropout=0.2),
    "attention whose weights are asked for": lambda: First(nn.MultiheadAttention(16, 4, batch_first=True), 3),
    "attention computed again": selective(attention()),
    "attention with dropout computed again": selective(attention(dropout=0.2)),
    "transformer block": lambda: nn.Sequential(*chain_of(models.gpt(1, 16, 4, 12, 6))[1:2]),
}
BLOCKS = [
    *((name, build, (5, 16)) for name, build in ROWS.items()),
    *((f"{name} of images", build, shape) for name, build in IMAGES.items() for shape in ((2, 16, 8, 8),)),
    *((f"{name} of many images", build, (80, 16, 8, 8)) for name, build in IMAGES.items()),
    *((name, build, (3, 6, 16)) for name, build in SEQUENCES.items()),
]
EACH_BLOCK = pytest.mark.parametrize(("build", "shape"), [b[1:] for b in BLOCKS], ids=[b[0] for b in BLOCKS])


def backwards(build, shape, halves, wants_grad=True, buffers=True, prepare=lambda block: None):
    """For each of two micro-batches the gradient of the input, then those of the parameters as they are after it.

    buffers: gradients of parameters have places of their own, as in a stage.
    """
    minidl.manual_seed(0)
    block = build()
    prepare(block)
    parameters = [p for p in block.parameters() if p.requires_grad]
    for p in parameters if buffers else ():
        p.gradient_buffer = np.full(p.shape, np.nan, p.data.dtype)

    def gradients():
        assert not buffers or all(p.grad is None or p.grad.data is p.gradient_buffer for p in parameters)
        return [None if p.grad is None else p.grad.numpy().copy() for p in parameters]

    found = []
    for m in range(2):
        y, saved = blocks.forward(block, draw(*shape) + np.float32(m), wants_grad)
        gradient = np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        if halves:
            before = gradients()
            input_gradient, later = saved.backward_input(gradient)
            assert all(map(same, gradients(), before))
            later.backward_weights()
        else:
            input_gradient = saved.backward(gradient)
        found += [input_gradient, *gradients()]
    return found


def same(a, b):
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))


def assert_same_bits(build, shape, **options):
    whole, halves = (backwards(build, shape, halves, **options) for halves in (False, True))
    assert len(whole) == len(halves) and all(map(same, whole, halves))
    return whole


@EACH_BLOCK
def test_two_halves_give_the_bits_of_a_whole_backward_first_and_accumulating(build, shape):
    for wants_grad, buffers in itertools.product((True, False), repeat=2):
        found = assert_same_bits(build, shape, wants_grad=wants_grad, buffers=buffers)
        assert (found[0] is not None) == wants_grad or not list(build().parameters())
    assert all(g is not None for g in assert_same_bits(build, shape))


@pytest.mark.parametrize("name", ["mlp-digits", "cnn-digits", "resnet-digits", "lstm-digits", "vae-digits", "gpt-tiny"])
def test_the_chain_of_a_model_gives_the_same_bits(name):
    results = []
    for halves in False, True:
        minidl.manual_seed(0)
        chain = chain_of(builder(name)())
        x, saved = builder(name)().example(4)[0].data, []
        for i, block in enumerate(chain):
            x, kept = blocks.forward(block, x, wants_grad=i > 0)
            saved.append(kept)
        gradient = np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        if halves:
            _, later = blocks.backward_input_through(saved, gradient)
            assert all(p.grad is None for block in chain for p in block.parameters())
            for left in later:
                left.backward_weights()
        else:
            blocks.backward_through(saved, gradient)
        results.append([p.grad.numpy() for block in chain for p in block.parameters()])
    assert all(np.array_equal(a, b) and np.abs(a).max() > 0 for a, b in zip(*results, strict=True))


def test_hooks_of_parameters_and_of_results_see_and_change_complete_gradients_once():
    seen = []

    def hooked(block):
        block.layer.weight.register_hook(lambda grad: seen.append(grad.numpy().copy()) or grad * 2)

    assert_same_bits(lambda: Twice(16), (5, 16), prepare=hooked)
    assert len(seen) == 4  # of two micro-batches, whole and in halves
    assert all(np.array_equal(*pair) for pair in zip(seen[:2], seen[2:], strict=True))


def test_hooks_of_results_within_a_block_change_what_goes_on_to_both_halves():
    class Halved(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x):
            y = self.first(x)
            y.register_hook(lambda grad: grad * 0.5)
            return self.second(y)

    class Plain(Halved):
        def forward(self, x):
            return self.second(self.first(x))

    halved, plain = assert_same_bits(Halved, (5, 16)), assert_same_bits(Plain, (5, 16))
    for n, factor in ((0, 0.5), (1, 0.5), (3, 1.0)):  # of the input, the first weight and the second
        np.testing.assert_allclose(halved[n], factor * plain[n], rtol=1e-6)


class InPlace(Op):
    """x * weight, whose backward reuses what it may, and gives the gradient of the weight where it belongs."""

    def forward(self, x, weight):
        self.x, self.weight = x.copy(), weight
        return self.kernels.multiply(x, weight)

    def backward(self, grad):
        grad_x = grad * self.weight if self.needs[0] else None
        grad_weight = self.destination(1) if self.needs[1] else None
        if self.needs[1]:
            values = (self.x * grad).sum(0)
            grad_weight = values if grad_weight is None else grad_weight
            grad_weight[...] = values
        if not self.retained:
            self.x[...] = np.nan
        return grad_x, grad_weight


class InPlaceInParts(InPlace):
    splits_backward = True


class Scaled(nn.Module):
    def __init__(self, op):
        self.op, self.weight = op, nn.Parameter((16,), init=nn.init.normal(0.0, 1.0))

    def forward(self, x):
        return self.op()(self.op()(x, self.weight), self.weight)


@pytest.mark.parametrize("op", [InPlace, InPlaceInParts])
def test_an_op_may_reuse_what_it_kept_and_write_where_the_gradient_belongs(op):
    found = assert_same_bits(lambda: Scaled(op), (5, 16))
    assert all(np.isfinite(g).all() for g in found)
    assert_first_halves_may_come_first(lambda: Scaled(op), (5, 16))


def assert_first_halves_may_come_first(build, shape):
    """Of two micro-batches, as on the later stages of a pipeline."""
    expected = backwards(build, shape, halves=False)
    minidl.manual_seed(0)
    block = build()
    parameters = [p for p in block.parameters() if p.requires_grad]
    for p in parameters:
        p.gradient_buffer = np.full(p.shape, np.nan, p.data.dtype)
    left, found = [], []
    for m in range(2):
        y, saved = blocks.forward(block, draw(*shape) + np.float32(m), True)
        input_gradient, later = saved.backward_input(np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape))
        left.append(later)
        found.append(input_gradient)
    assert all(p.grad is None for p in parameters)
    for later, input_gradient in zip(left, found, strict=True):
        later.backward_weights()
        for got in (input_gradient, *(p.grad.numpy() for p in parameters)):
            assert same(got, expected.pop(0))


@EACH_BLOCK
def test_the_first_half_of_the_next_micro_batch_may_come_before_the_second_half(build, shape):
    assert_first_halves_may_come_first(build, shape)


def test_between_the_halves_nothing_of_the_first_is_left_but_what_the_second_needs():
    block = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 8))
    y, saved = blocks.forward(block, draw(5, 16), True)
    gradient = np.ones_like(y)
    _, later = saved.backward_input(gradient)
    assert not list(saved.arrays())
    sizes = sorted({id(a): a.size for a in later.arrays() if a.shape[0] == 5}.values())
    assert sizes == [5 * 8, 5 * 16, 5 * 24, 5 * 24]  # of each product its input and the gradient of its result
    later.backward_weights()
    assert not list(later.arrays())


# What is in which half


def recorded(build, shape):
    """The calls of a whole backward, and of the two halves of another."""
    with minidl.device("meta"):
        block = build()
    x = on_meta(draw(*shape))

    def start():
        with minidl.device("meta"):
            y, saved = blocks.forward(block, x, True)
        return saved, on_meta(np.zeros(y.shape, y.dtype))

    for p in block.parameters():
        p.grad = None
    saved, gradient = start()
    with meta.record() as whole:
        saved.backward(gradient)
    for p in block.parameters():
        p.grad = None
    saved, gradient = start()
    with meta.record() as first:
        _, later = saved.backward_input(gradient)
    with meta.record() as second:
        later.backward_weights()
    return whole, first, second


def multiplies(calls):
    return [call for call in calls if call.kind in ("product", "convolution")]


@EACH_BLOCK
def test_the_products_of_both_halves_are_those_of_the_whole_and_no_work_is_done_twice(build, shape):
    whole, first, second = recorded(build, shape)
    assert Counter(multiplies([*first, *second])) == Counter(multiplies(whole))
    assert flops(first) + flops(second) == flops(whole)


def test_a_product_and_a_convolution_are_split_evenly():
    for build, shape in (
        (lambda: nn.Linear(16, 16, bias=False), (5, 16)),
        (lambda: nn.Conv2d(16, 16, 3, padding=1, bias=False), (2, 16, 8, 8)),
        (lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), (2, 16, 8, 8)),
    ):
        _, first, second = recorded(build, shape)
        (of_input,), (of_weight,) = multiplies(first), multiplies(second)
        assert of_input.flops == of_weight.flops > 0
    _, first, second = recorded(lambda: nn.Conv2d(16, 16, 3, padding=1), (2, 16, 8, 8))
    assert [call.name for call in multiplies(first)] == ["conv2d_grad_input"]
    assert [call.name for call in multiplies(second)] == ["conv2d_grad_weight"]


@pytest.mark.parametrize("name", ["layer norm", "rms norm", "batch norm"])
def test_a_norm_finds_all_its_gradients_at_once_in_the_first_half(name):
    _, first, second = recorded(ROWS[name], (5, 16))
    assert any(call.kind == "normalisation" for call in first) and flops(first) > 0
    assert flops(second) == 0


def test_a_block_whose_input_wants_no_gradient_does_its_products_in_the_second_half():
    with minidl.device("meta"):
        block = nn.Linear(16, 24)
        y, saved = blocks.forward(block, on_meta(draw(5, 16)), False)
    with meta.record() as first:
        input_gradient, later = saved.backward_input(on_meta(np.zeros(y.shape, y.dtype)))
    with meta.record() as second:
        later.backward_weights()
    assert input_gradient is None and not first and len(multiplies(second)) == 1


def test_a_block_that_gives_its_parameter_itself_has_its_gradient_in_the_second_half():
    class Constant(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(minidl.ones(3))

        def forward(self, x):
            return self.weight

    block = Constant()
    _, saved = blocks.forward(block, np.zeros((2, 4), np.float32), wants_grad=True)
    given, later = saved.backward_input(np.full(3, 2, np.float32))
    assert given is None and block.weight.grad is None
    later.backward_weights()
    assert block.weight.grad.numpy().tolist() == [2, 2, 2]
