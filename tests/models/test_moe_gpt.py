"""GPT with mixtures of experts: its loss, its blocks, what it learns, and that it trains alike under plans."""

import functools

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.models.moe_gpt import Balanced, MixtureBlock, MoELoss
from minidl.parallel import Plan, train
from minidl.parallel.prepare import prepare
from simulator import simulate
from tests.simulator.hand_made import cluster

pytestmark = pytest.mark.usefixtures("warm_workers")

MIXTRAL = dict(positions="rotary", kv_heads=2, feed_forward="swiglu", inner=24, norm="rms", bias=False)
VARIANTS = {
    "plain": {},
    "every other block": dict(every=2),
    "one choice": dict(top_k=1),
    "Mixtral's": MIXTRAL,
    "shared": dict(shared_inner=8, dense_layers=1),
}
HIDDEN, HEADS, VOCABULARY, SEQUENCE, EXPERTS = 16, 4, 12, 6, 4


def test_the_loss_is_the_cross_entropy_and_each_samples_balance_as_often_as_it_has_targets():
    generator = np.random.default_rng(0)
    logits, balance = generator.standard_normal((3, 4, 5)), generator.random(3)
    target = generator.integers(5, size=(3, 4))
    target[0, 1:] = -100  # one that counts, of four
    output = tuple(minidl.tensor(array, requires_grad=True) for array in (logits, balance))
    loss = MoELoss(balance=0.5)
    total, weight = loss.sum_and_weight(output, minidl.tensor(target))
    total.backward()
    alone, _ = nn.CrossEntropyLoss().sum_and_weight(minidl.tensor(logits), minidl.tensor(target))
    counts = np.array([1, 4, 4])
    assert weight.item() == counts.sum()
    assert total.item() == pytest.approx(alone.item() + 0.5 * (counts * balance).sum(), rel=1e-12)
    np.testing.assert_allclose(output[1].grad.numpy(), 0.5 * counts)
    right, of = loss.right_answers(output, minidl.tensor(target))
    assert of.item() == counts.sum() and right.item() == (logits.argmax(-1) == target).sum()


def test_a_balance_below_nought_is_refused():
    with pytest.raises(ValueError, match="MoELoss: balance=-1, it must be at least 0"):
        MoELoss(-1)


@pytest.mark.parametrize(("every", "mixtures"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (4, [3])])
def test_every_so_many_blocks_have_experts_and_the_balance_is_the_sum_of_theirs(every, mixtures):
    model = models.moe_gpt(4, HIDDEN, HEADS, VOCABULARY, SEQUENCE, EXPERTS, every=every)
    embedding, *blocks, head = model
    assert [i for i, block in enumerate(blocks) if isinstance(block, MixtureBlock)] == mixtures
    assert all(isinstance(block, MixtureBlock | Balanced) for block in (*blocks, head))
    given, losses = embedding(model.example(3)[0]), []
    assert given[1].numpy().tolist() == [0, 0, 0]
    for block in blocks:
        if isinstance(block, MixtureBlock):
            losses.append(block.feed_forward(block.norm2(block.attend(given[0])))[1].numpy())
        given = block(given)
    logits, balance = head(given)
    assert logits.shape == (3, SEQUENCE, VOCABULARY)
    np.testing.assert_allclose(balance.numpy(), np.sum(losses, 0), rtol=1e-6)


def test_experts_alike_make_the_dense_model():
    dense = models.gpt(2, HIDDEN, HEADS, VOCABULARY, SEQUENCE)
    model = models.moe_gpt(2, HIDDEN, HEADS, VOCABULARY, SEQUENCE, EXPERTS, capacity_factor=2.0)
    state = model.state_dict()
    for name, value in dense.state_dict().items():
        block, _, rest = name.partition(".")
        if block in ("0", "3"):
            state[f"{block}.{'embedding' if block == '0' else 'block'}.{rest}"] = value
        elif not rest.startswith("feed_forward"):
            state[name] = value
        else:  # feed_forward.up.weight (inner, hidden)
            _, which, kind = rest.split(".")
            one = value.numpy().T if kind == "weight" else value.numpy()[None]
            state[f"{block}.feed_forward.{which}{'_bias' if kind == 'bias' else ''}"] = np.stack([one] * EXPERTS)
    model.load_state_dict(state)
    x, _ = model.example(3)
    np.testing.assert_allclose(model(x)[0].numpy(), dense(x).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_learns_a_text_by_heart(options):
    minidl.manual_seed(0)
    model = models.moe_gpt(2, 32, 4, 16, 12, EXPERTS, **options)
    x, y = model.example(4)
    optimizer, cross_entropy = optim.AdamW(model.parameters(), lr=1e-2), nn.CrossEntropyLoss()
    for _ in range(60):
        optimizer.zero_grad()
        model.loss()(model(x), y).backward()
        optimizer.step()
    assert cross_entropy(model(x)[0], y).item() < 0.1


def test_the_balance_loss_spreads_the_tokens_over_the_experts():
    def dropped(balance):
        minidl.manual_seed(5)
        model = models.moe_gpt(1, 16, 2, 16, 32, EXPERTS, top_k=1, balance=balance, capacity_factor=1.0)
        mixture = model[1].feed_forward
        with minidl.no_grad():
            mixture.router.weight[0] += 0.5 * mixture.router.weight[0]  # some are more probable to begin with
        x, y = model.example(8)
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            model.loss()(model(x), y).backward()
            optimizer.step()
        before = mixture.dropped.numpy().copy()
        model(x)
        return (mixture.dropped.numpy() - before)[0]

    assert dropped(0.1) < 0.7 * dropped(0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every=0), "moe_gpt: every=0 is not a whole number of at least 1"),
        (dict(dense_layers=-1), "moe_gpt: dense_layers=-1 is not a whole number of at least 0"),
        (dict(shared_inner=0), "moe_gpt: shared_inner=0 is not a whole number of at least 1"),
        (dict(top_k=5), "top_k=5 is not between 1 and experts=4"),
        (dict(feed_forward="relu"), "feed_forward='relu', choose one of gelu, swiglu"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.moe_gpt(1, HIDDEN, HEADS, VOCABULARY, SEQUENCE, EXPERTS, **options)


# Under plans

TEXT = np.random.default_rng(0).integers(VOCABULARY, size=(40, SEQUENCE + 1))
SENTENCES = data.ArrayDataset(TEXT[:, :-1], TEXT[:, 1:])


def build(mesh, **options):
    return models.moe_gpt(3, HIDDEN, HEADS, VOCABULARY, SEQUENCE, EXPERTS, mesh, 0.1, capacity_factor=1.0, **options)


def trained(plan, **options):
    return train(
        lambda mesh: build(mesh, **options), SENTENCES, plan, loss=MoELoss(0.1), batch_size=16, steps=6,
        optimizer=lambda p: optim.SGD(p, lr=0.5, momentum=0.9), dtype="float64", timeout=120, evaluate=SENTENCES,
    )  # fmt: skip


@functools.cache
def trained_alone(*options):
    return trained(Plan(), **dict(options))


PLANS = [
    Plan(data=2),
    Plan(pipeline=2, micro_batches=2),
    Plan(tensor=2),
    Plan(data=2, pipeline=2, micro_batches=2, schedule="zero-bubble"),
    Plan(pipeline=2, chunks=2, micro_batches=2, schedule="interleaved", recompute="full"),
    Plan(data=2, micro_batches=2, sharding="optimizer", bucket_mb=0.001),
]


@pytest.mark.parametrize("options", [{}, dict(every=2) | MIXTRAL], ids=["every block", "every other, Mixtral's"])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_it_trains_under_plans_as_on_one_worker(plan, options):
    got, expected = trained(plan, **options), trained_alone(*options.items())
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-10)
    assert got.evaluations[-1].accuracy == expected.evaluations[-1].accuracy
    ours, theirs = got.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name.endswith("dropped"):  # those of the first replica's samples
            assert ours[name][1] == value[1] // plan.data and 0 < ours[name][0] <= value[0]
        else:
            np.testing.assert_allclose(ours[name], value, rtol=1e-7, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("plan", PLANS[:3], ids=str)
def test_its_memory_is_what_is_predicted(plan):
    options = dict(optimizer=lambda p: optim.SGD(p, lr=0.1), loss=MoELoss(), batch_size=32)
    run = train(build, SENTENCES, plan, steps=3, timeout=120, **options)
    prediction = simulate(build, plan, cluster(cores=2), example=SENTENCES[np.arange(1)], **options)
    assert prediction.memory_bytes <= run.memory_bytes <= 1.02 * prediction.memory_bytes


def test_on_meta_the_experts_cost_top_k_feed_forward_layers_and_the_slots_that_stay_empty():
    hidden, inner, tokens, experts = 4096, 14336, 4096, 8

    def forward_flops(name):
        build = models.builder(name, layers=1, sequence=tokens, vocabulary=64)
        (_, block, _) = prepare(build, Plan(), 1).profile.blocks
        return sum(call.flops for call in block.forward if call.kind == "product")

    one = 3 * 2 * tokens * hidden * inner  # gate, up and down
    router = 2 * tokens * hidden * experts
    assert forward_flops("mixtral-8x7b") - forward_flops("llama3-8b") == router + 2 * 1.25 * one - one
