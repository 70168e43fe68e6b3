"""What a block keeps for its backward: meta says what the CPU does, storage by storage."""

import numpy as np
import pytest

import minidl
from minidl import models, nn, ops
from minidl.kernels.meta import MetaArray, convolution
from minidl.models import builder
from minidl.op import Op
from minidl.parallel import blocks
from minidl.parallel.chain_profile import chain_of, loss_of
from minidl.storage import on_meta, placement, storage, storages


def run(block, x, wants_grad):
    """The output of `block`, and of what is kept, of input and output all that memory is counted from."""
    with minidl.device("meta" if isinstance(x, MetaArray) else "cpu"):
        y, saved = blocks.forward(block, x, wants_grad)
    kept = storages(saved.arrays())
    for owner in storages(t.data for t in (*block.parameters(), *block.buffers())):
        kept.pop(owner, None)
    whose = id(storage(x)) in kept, id(storage(y)) in kept, storage(y) is storage(x)
    return y, (sorted(kept.values()), whose, placement(on_meta(y)))


def check_chain(build, x, wants_grad=False):
    """Run the chain that `build()` makes on the CPU and on meta, block by block, and compare."""
    real = chain_of(build())
    with minidl.device("meta"):
        shapes = chain_of(build())
    stand_in = on_meta(x)
    for i, (block, shape) in enumerate(zip(real, shapes, strict=True)):
        x, found = run(block, x, wants_grad)
        stand_in, predicted = run(shape, stand_in, wants_grad)
        assert predicted == found, f"block {i}: {block}"
        wants_grad = wants_grad or any(True for _ in block.parameters())


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


TEXT = {"vocabulary": 50, "sequence": 32}
SMALL_AND_LARGE = (  # large: many kernels are then compiled ones
    ("mlp-digits", 2, 600, {}),
    ("cnn-digits", 2, 80, {}),
    ("cifar-cnn", 1, 8, {}),
    ("resnet-digits", 2, 80, {}),
    ("lstm-digits", 2, 64, {}),
    ("vae-digits", 2, 600, {}),
    ("gpt-tiny", 1, 3, {"sequence": 64}),
    ("llama2-70b", 1, 8, {"layers": 1, "hidden": 64, "heads": 4, "kv_heads": 2, "inner": 96} | TEXT),
    ("bert-base", 1, 8, {"layers": 1, "hidden": 64, "heads": 4} | TEXT),
    ("lstm-ptb", 2, 40, {"vocabulary": 60, "hidden": 50}),
)  # fmt: skip


@pytest.mark.parametrize(("name", "few", "many", "changes"), SMALL_AND_LARGE, ids=[m[0] for m in SMALL_AND_LARGE])
def test_meta_keeps_what_the_cpu_keeps_for_every_block_of_a_model(name, few, many, changes):
    for batch in few, many:
        x, _ = builder(name, **changes)().example(batch)
        check_chain(builder(name, **changes), x.data)


ROWS = {
    "linear": lambda: nn.Linear(128, 64),
    "linear without bias": lambda: nn.Linear(128, 64, bias=False),
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU("tanh"),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "softmax": lambda: nn.Softmax(-1),
    "dropout": lambda: nn.Dropout(0.3),
    "identity": nn.Identity,
    "layer norm": lambda: nn.LayerNorm(128),
    "rms norm": lambda: nn.RMSNorm(128),
    "batch norm": lambda: nn.BatchNorm1d(128),
    "batch norm in use": lambda: nn.BatchNorm1d(128).eval(),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("rows", [3, 600])
def test_meta_keeps_what_the_cpu_keeps_for_layers_of_rows(name, rows):
    for wants_grad in False, True:
        check_chain(ROWS[name], draw(rows, 128), wants_grad)


IMAGES = {
    "conv": lambda c: nn.Conv2d(c, 16, 3, padding=1),
    "conv of stride 2": lambda c: nn.Conv2d(c, 16, 3, 2, padding=1, bias=False),
    "conv 1x1": lambda c: nn.Conv2d(c, 16, 1),
    "depthwise conv": lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c),
    "max pool": lambda c: nn.MaxPool2d(2),
    "max pool that overlaps": lambda c: nn.MaxPool2d(3, 2, 1),
    "avg pool": lambda c: nn.AvgPool2d(2),
    "adaptive avg pool": lambda c: nn.AdaptiveAvgPool2d(1),
    "batch norm": nn.BatchNorm2d,
    "group norm": lambda c: nn.GroupNorm(1, c),
    "relu": lambda c: nn.ReLU(),
    "gelu": lambda c: nn.GELU(),
    "dropout": lambda c: nn.Dropout(0.2),
    "dropout of channels": lambda c: nn.Dropout2d(0.2),
    "softmax": lambda c: nn.Softmax(1),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    "shape", [(1, 1, 8, 8), (2, 3, 8, 8), (2, 16, 8, 8), (16, 16, 16, 16), (64, 16, 8, 8)], ids=str
)
def test_meta_keeps_what_the_cpu_keeps_for_layers_of_images_in_either_order_of_memory(name, shape):
    channels = shape[1]

    def build():  # as given, channels first; and behind a pooling, channels last
        return nn.Sequential(nn.MaxPool2d(1), IMAGES[name](channels), nn.Flatten())

    check_chain(build, draw(*shape), wants_grad=True)
    check_chain(lambda: nn.Sequential(IMAGES[name](channels), nn.Flatten()), draw(*shape))


class First(nn.Module):
    """The first of the results of a recurrent layer or of attention."""

    def __init__(self, layer, inputs=1):
        self.layer, self.inputs = layer, inputs

    def forward(self, x):
        return self.layer(*(x,) * self.inputs)[0]


SEQUENCES = {
    "rnn": lambda: First(nn.RNN(32, 24)),
    "lstm": lambda: First(nn.LSTM(32, 24)),
    "gru": lambda: First(nn.GRU(32, 24)),
    "two lstms both ways": lambda: First(nn.LSTM(32, 24, num_layers=2, dropout=0.2, bidirectional=True)),
    "attention": lambda: First(nn.MultiheadAttention(32, 4, dropout=0.1, batch_first=True), 3),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("shape", [(5, 2, 32), (64, 40, 32)], ids=str)
def test_meta_keeps_what_the_cpu_keeps_for_layers_of_sequences(name, shape):
    check_chain(SEQUENCES[name], draw(*shape), wants_grad=True)


def test_a_meta_kernel_with_another_order_of_memory_than_the_cpus_is_caught(monkeypatch):
    monkeypatch.setattr(convolution, "channels_last", lambda shape: None)
    with pytest.raises(AssertionError, match="block 0: Conv2d"):
        check_chain(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), draw(2, 1, 8, 8))


LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(), (40, 10), "classes"),
    "large cross-entropy": (nn.CrossEntropyLoss(), (64, 128, 10), "classes"),
    "smoothed cross-entropy": (nn.CrossEntropyLoss(label_smoothing=0.1), (40, 10), "classes"),
    "cross-entropy over dimension 1": (nn.CrossEntropyLoss(dim=1), (4, 10, 6), "classes"),
    "mean square": (nn.MSELoss(), (40, 3), "numbers"),
    "large mean square": (nn.MSELoss(), (400, 300), "numbers"),
    "mean absolute": (nn.L1Loss(), (40, 3), "numbers"),
    "huber": (nn.HuberLoss(), (40, 3), "numbers"),
    "binary cross-entropy": (nn.BCEWithLogitsLoss(), (40, 3), "numbers"),
    "vae": (loss_of(models.vae(8, 128, 8)), (40, 80), "image"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_leaves_a_gradient_of_its_own_memory_on_meta_as_on_the_cpu(name):
    loss, shape, target = LOSSES[name]
    output = draw(*shape)
    if target == "classes":
        target = np.zeros(np.delete(shape, loss.dim), np.int64)
    else:
        target = draw(*shape) if target == "numbers" else draw(shape[0], 64)
    _, _, gradient = blocks.loss_and_gradient(loss, output, target)
    with minidl.device("meta"):
        _, _, predicted = blocks.loss_and_gradient(loss, on_meta(output), on_meta(target))
    assert placement(predicted) == placement(on_meta(gradient))
    assert storage(gradient).nbytes == output.nbytes and not np.shares_memory(gradient, output)


class Hoarder(Op):
    """Keeps its input in every way there is, half of it, and 24 bytes of its own."""

    def forward(self, x):
        k = self.kernels
        self.x, self.pair, self.named = x, (x, 1), {"x": k.reshape(x, (-1,))}
        self.tensor, self.view = minidl.Tensor(k.full((3,), 0, "float64")), k.index(x, (slice(0, 1),))
        return k.multiply(x, 2)

    def backward(self, grad):
        return grad


def test_everything_an_op_keeps_is_found_once_and_what_others_hold_is_left_out():
    class Block(nn.Module):
        def forward(self, x):
            return Hoarder()(x)

    for x in draw(2, 50), MetaArray((2, 50), "float32"):
        _, saved = blocks.forward(Block(), x, True)
        assert sorted(storages(saved.arrays()).values()) == [24, 400]


def test_a_flattened_image_is_a_view_of_it_or_a_copy_where_its_channels_lie_last():
    def flattened(x):
        y, _ = blocks.forward(nn.Flatten(), x, True)
        return storage(y) is storage(x)

    for make in (lambda x: x), on_meta:
        first = draw(2, 3, 4, 4)
        last = ops.max_pool2d(minidl.Tensor(first), 1).data
        assert flattened(make(first)) and not flattened(make(last))
