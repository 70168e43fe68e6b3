"""Transfer learning: frozen parameters stay as they are, heads are replaced, lower blocks learn more slowly."""

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.models.transfer import discriminative_rates, freeze, replace_head
from minidl.parallel import Plan, train
from tests.models.learning import accuracy, fit

pytestmark = pytest.mark.usefixtures("warm_workers")

DIGITS = data.digits()[0]
UNTIL = 6  # of the cnn's blocks: two of its three convolutions


def small_cnn(mesh=None):
    return models.cnn(widths=(4, 6, 8), classes=5, mesh=mesh)


@pytest.fixture
def state():
    minidl.manual_seed(0)
    return {name: value.numpy().copy() for name, value in small_cnn().state_dict().items()}


def taken_over(state, mesh=None):
    model = small_cnn(mesh)
    model.load_state_dict(state)
    return replace_head(freeze(model, UNTIL), nn.Linear(8 * 2 * 2, 10))


def frozen_and_trained(got, state):
    """Which parameters of `got` are, bit for bit, those of `state`, and which differ."""
    same = {name for name in got.keys() & state.keys() if np.array_equal(got[name], state[name])}
    return same, got.keys() - same


BELOW = {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_frozen_parameters_stay_as_they_are_bit_for_bit(state):
    model = taken_over(state)
    optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    fit(model, DIGITS, epochs=1, optimizer=optimizer)
    got = {name: value.numpy() for name, value in model.state_dict().items()}
    assert frozen_and_trained(got, state) == (BELOW, {"6.weight", "6.bias", "9.weight", "9.bias"})
    assert all(p.grad is None for p in model[0].parameters())


def by_block(parameters):
    """Groups of the head and of the rest, by the names that parameters have in `train`."""
    head = [p for p in parameters if p.name.startswith("9.")]
    rest = [p for p in parameters if not p.name.startswith("9.")]
    groups = [{"params": rest, "lr": 0.01}, {"params": head, "lr": 0.1}]
    return optim.SGD([group for group in groups if group["params"]], momentum=0.9, weight_decay=0.01)


PLANS = [Plan(), Plan(data=2, sharding="optimizer"), Plan(data=2, pipeline=2, micro_batches=2)]


def test_every_plan_leaves_frozen_parameters_and_trains_groups_at_their_own_rates(state):
    runs = [
        train(
            lambda mesh: taken_over(state, mesh), DIGITS, plan, optimizer=by_block, loss=nn.CrossEntropyLoss(),
            batch_size=64, steps=5, lr_schedule=lambda step: 1 / (1 + step), timeout=120,
        )
        for plan in PLANS
    ]  # fmt: skip
    expected = runs[0].state_dict()
    for run in runs:
        got = run.state_dict()
        assert frozen_and_trained(got, state) == (BELOW, {"6.weight", "6.bias", "9.weight", "9.bias"})
        np.testing.assert_allclose(run.losses, runs[0].losses, rtol=1e-5)
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_melted_blocks_are_trained_again(state):
    model = freeze(freeze(small_cnn(), 10), 3)
    assert [p.requires_grad for p in model.parameters()] == [False] * 2 + [True] * 6


def test_the_lower_a_block_the_slower_it_learns():
    model = freeze(small_cnn(), 3)
    groups = discriminative_rates(model, 0.1, 0.5)
    assert [group["lr"] for group in groups] == pytest.approx([0.025, 0.05, 0.1])
    assert [[id(p) for p in group["params"]] for group in groups] == [
        [id(p) for p in model[i].parameters()] for i in (3, 6, 9)
    ]


def test_a_new_head_sits_on_the_same_blocks():
    model = small_cnn()
    new = replace_head(model, nn.Linear(32, 3))
    assert [id(block) for block in new.blocks[:-1]] == [id(block) for block in model.blocks[:-1]]
    assert new(minidl.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_more_blocks_than_there_are_cannot_be_frozen():
    with pytest.raises(ValueError, match="until=11, the model has 10 blocks"):
        freeze(small_cnn(), 11)


def scattered(dataset, classes, times=1, per_class=None, seed=0):
    """Digits of the given classes, `times` each or a few of each, at random places of an empty 12×12 image."""
    generator = np.random.default_rng(seed)
    chosen = [np.flatnonzero(dataset.y == c)[:per_class] for c in classes]
    index = np.tile(np.concatenate(chosen), times)
    x = np.zeros((len(index), 1, 12, 12), np.float32)
    for i, (row, column) in enumerate(generator.integers(0, 5, size=(len(index), 2))):
        x[i, 0, row : row + 8, column : column + 8] = dataset.x[index[i], 0]
    return data.ArrayDataset(x, dataset.y[index] - classes[0])


@pytest.mark.slow
def test_what_was_learned_of_0_to_4_helps_with_few_samples_of_5_to_9():
    train_set, test_set = data.digits()
    few = scattered(train_set, range(5, 10), per_class=10)
    test_few = scattered(test_set, range(5, 10), seed=1)

    def small_resnet():
        return models.resnet(18, 1, 12, 5, width=8, stem="cifar")

    def trained(model, samples, parameters, epochs):
        fit(model, samples, epochs, optimizer=optim.Adam(parameters, lr=0.003), batch_size=min(64, len(samples) // 2))
        return accuracy(model, test_few)

    minidl.manual_seed(0)
    before = small_resnet()
    trained(before, scattered(train_set, range(5), times=4), before.parameters(), epochs=3)
    assert accuracy(before, scattered(test_set, range(5), seed=1)) >= 0.9

    until = 5  # stem and the first stage
    frozen = [p.numpy().copy() for block in before.blocks[:until] for p in block.parameters()]
    model = replace_head(freeze(before, until), nn.Linear(64, 5))
    transferred = trained(model, few, discriminative_rates(model, lr=0.003, decay=0.7), epochs=20)
    for p, value in zip([p for block in model.blocks[:until] for p in block.parameters()], frozen, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)

    scratch = small_resnet()
    alone = trained(scratch, few, scratch.parameters(), epochs=60)
    assert accuracy(scratch, few) == 1  # it has learned what there is to learn, by heart
    assert transferred >= 0.5 and transferred > alone + 0.1  # by chance it is 0.2
