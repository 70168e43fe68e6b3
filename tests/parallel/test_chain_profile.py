"""Profiles: what a block costs, against closed forms."""

from minidl import models, nn, optim
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.parallel import Mesh
from minidl.parallel.block_profile import flops
from minidl.parallel.chain_profile import build_on_meta, profile_chain
from minidl.parallel.handle import CollectiveCall

B = 32


def profile(build, *shape, mesh=None):
    """The block profiles of the model that `build(mesh)` makes, for a batch of B samples of `shape`."""
    model, x = build_on_meta(build, mesh or Mesh({})), MetaArray((B, *shape), "float32")
    return profile_chain(model, x, MetaArray((B,), "int64"), nn.CrossEntropyLoss(), sgd).blocks


def sgd(parameters):
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


def two_layers(mesh):
    return nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 10))


def matmul_flops(calls):
    return sum(c.flops for c in calls if isinstance(c, KernelCall) and c.kind == "product")


def test_a_linear_layer_costs_2mnk_forward_and_twice_that_backward():
    first, second = profile(two_layers, 64)
    forward = 2 * B * 128 * 10
    assert matmul_flops(second.forward) == forward
    assert matmul_flops(second.backward) == 2 * forward
    assert matmul_flops(first.backward) == 2 * B * 64 * 128  # nobody wants the gradient of the data
    assert flops(first.forward) >= matmul_flops(first.forward) == 2 * B * 64 * 128


def test_what_a_block_holds_is_counted_in_bytes():
    (block, _) = profile(two_layers, 64)
    assert block.parameter_count == 64 * 128 + 128
    assert block.parameter_bytes == 4 * block.parameter_count
    assert [(p.elements, p.nbytes, p.state_bytes) for p in block.parameters] == [
        (n, 4 * n, 4 * n) for n in (64 * 128, 128)
    ]
    assert block.output.shape == (B, 128)


def test_a_linear_and_relu_block_saves_its_input_and_its_output_once():
    class Block(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(64, 128)

        def forward(self, x):
            return self.linear(x).relu()

    (block,) = profile(lambda mesh: Block(), 64)
    assert block.saved_bytes == 4 * B * (64 + 128)
    linear, relu = profile(lambda mesh: nn.Sequential(nn.Linear(64, 128), nn.ReLU()), 64)
    assert (linear.saved_bytes, relu.saved_bytes) == (4 * B * 64, 4 * B * 128)


def test_what_a_block_saves_is_listed_by_storage():
    class Function(nn.Module):
        def __init__(self, function):
            self.function = function

        def forward(self, x):
            return self.function(x)

    functions = (
        lambda x: (x * x).exp(),
        lambda x: x.tanh().sigmoid() * 2,
        lambda x: x.reshape(B, 8, 16),
        lambda x: x[:, 1:3].exp(),
        lambda x: x[:, 0],
    )
    chain = profile(lambda mesh: nn.Sequential(nn.Linear(64, 128), *map(Function, functions), nn.Linear(16, 10)), 64)
    whole, part = 4 * B * 128, 4 * B * 2 * 16
    assert [block.saved for block in chain] == [
        (("input", 4 * B * 64),),
        (("output", whole), ("input", whole)),
        (("0", whole), ("1", whole)),
        (),
        (("output", part),),
        (),
        (("input", part),),  # what it is given is a view, and keeps the whole alive
    ]
    assert [block.passed for block in chain] == [(None,), (None,), (None,), (0,), (None,), (0,), (None,)]
    assert [block.saved_bytes for block in chain] == [4 * B * 64, 2 * whole, 2 * whole, 0, part, 0, part]


def test_the_statistics_that_an_evaluated_batch_norm_uses_are_not_saved_by_it():
    norm = profile(lambda mesh: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4).eval(), nn.Flatten()), 1, 8, 8)[1]
    assert norm.saved == (("input", 4 * B * 4 * 6 * 6), ("0", 4 * 4))  # 1/standard deviation is made anew


def test_identical_blocks_are_run_once():
    runs = []

    class Counted(nn.Linear):
        def forward(self, x):
            runs.append(self)
            return super().forward(x)

    layers = profile(lambda mesh: nn.Sequential(*(Counted(8, 8) for _ in range(50))), 8)
    assert len(layers) == 50 and len({id(block) for block in layers[1:]}) == 1
    once = len(runs)
    runs.clear()
    profile(lambda mesh: nn.Sequential(*(Counted(8, 8) for _ in range(2))), 8)
    assert len(runs) == once


def test_blocks_that_differ_in_any_option_are_not_taken_for_identical():
    def build(mesh):
        layers = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        return nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.2), nn.Identity(), *layers)

    assert len({id(block) for block in profile(build, 16)}) == 5


def test_nobody_pays_for_the_gradient_of_the_data():
    flatten, first, second = profile(lambda mesh: nn.Sequential(nn.Flatten(), *two_layers(mesh).blocks), 8, 8)
    assert flatten.backward == ()
    assert matmul_flops(first.backward) == matmul_flops(first.forward)
    assert matmul_flops(second.backward) == 2 * matmul_flops(second.forward)


def test_accumulating_a_gradient_costs_what_the_first_does_and_the_sum():
    block = profile(two_layers, 64)[1]
    added = flops(block.accumulate) - flops(block.backward)
    assert added == block.parameter_count


def test_the_profile_of_a_split_layer_has_half_the_flops_and_its_collectives():
    def build(mesh):
        return models.mlp((64, 128, 10), mesh=mesh)

    whole, half = profile(build, 1, 8, 8), profile(build, 1, 8, 8, mesh=Mesh({"tensor": 2}))
    assert [matmul_flops(b.forward) * 2 for b in half] == [matmul_flops(b.forward) for b in whole]
    collectives = [[c for c in b.forward + b.backward if isinstance(c, CollectiveCall)] for b in half]
    assert [c for calls in collectives for c in calls] == [CollectiveCall("all_reduce", ("tensor",), 2, 4 * B * 10)]
    assert not any(isinstance(c, CollectiveCall) for b in whole for c in b.forward + b.backward)
