"""GPT and its options: rotary positions, grouped queries, gated feed-forward layers, RMSNorm, a tied head."""

import itertools

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.models.attention import GroupedQueryAttention, rotate
from minidl.models.latent_attention import LatentSizes
from minidl.parallel import Plan, train
from tests.models.oracle import assert_equals_torch

pytestmark = pytest.mark.usefixtures("warm_workers")

LLAMA = dict(positions="rotary", kv_heads=2, feed_forward="swiglu", inner=24, norm="rms", bias=False)
LATENT = LatentSizes(query_rank=6, kv_rank=5, rotary_dim=2, value_dim=3)
VARIANTS = {
    "GPT-2's": {},
    "rotary": dict(positions="rotary"),
    "one key for all queries": dict(kv_heads=1),
    "wide heads": dict(head_dim=12),
    "relu": dict(feed_forward="relu"),
    "swiglu": dict(feed_forward="swiglu"),
    "rms": dict(norm="rms", eps=1e-3),
    "biases of queries, keys and values": dict(bias=False, qkv_bias=True),
    "tied": dict(tied=True),
    "a window, in every other block": dict(window=3, full_every=2),
    "latent": dict(positions="rotary", latent=LATENT),
    "LLaMA's, normed heads": dict(normed_heads=True) | LLAMA,
}
HIDDEN, HEADS, HEAD_DIM = 16, 4, 6


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_learns_a_text_by_heart(options):
    minidl.manual_seed(0)
    model = models.gpt(2, 32, 4, 16, 12, **options)
    x, y = model.example(4)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # without attention to the past it stays above 1


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_the_future_does_not_change_the_logits_of_the_past(options):
    model = models.gpt(2, 16, 4, 11, 8, **options)
    text = np.random.default_rng(0).integers(11, size=(1, 8))
    changed = text.copy()
    changed[0, 5:] = (changed[0, 5:] + 1) % 11
    a, b = (model(minidl.tensor(t)).numpy() for t in (text, changed))
    np.testing.assert_array_equal(a[0, :5], b[0, :5])
    assert (a[0, 5:] != b[0, 5:]).all()


def test_rotated_queries_and_keys_know_only_how_far_they_are_apart():
    q, k = np.random.default_rng(0).standard_normal((2, 6))
    rotated = [rotate(minidl.tensor(np.tile(v, (9, 1)))).numpy() for v in (q, k)]
    scores = rotated[0] @ rotated[1].T  # (9, 9), the same query and key at all places
    for i, j in itertools.product(range(8), repeat=2):
        assert scores[i + 1, j + 1] == pytest.approx(scores[i, j], rel=1e-12)
    assert len(np.unique(scores[:, 0].round(8))) == 9
    assert scores[0, 0] == pytest.approx(q @ k)


def transcription(torch):
    """LLaMA's block in PyTorch, with its own attention, its own RMSNorm and positions as complex numbers."""
    F = torch.nn.functional

    def rotated(x):  # (batch, heads, sequence, head_dim)
        half = x.shape[-1] // 2
        angle = torch.outer(torch.arange(x.shape[-2]).double(), 10000.0 ** (-torch.arange(half).double() / half))
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([turned.real, turned.imag], -1)

    def block(x, p):
        batch, sequence, _ = x.shape
        y = F.rms_norm(x, (HIDDEN,), p["norm1.weight"], 1e-3)
        qkv = p["attention.qkv.weight"].reshape(2, 2 + 2, HEAD_DIM, HIDDEN)  # 2 keys of 2 queries each
        parts = (qkv[:, :2], qkv[:, 2:3], qkv[:, 3:])
        heads = [F.linear(y, part.reshape(-1, HIDDEN)).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for part in parts]
        norms = [p[f"attention.{name}_norm.weight"] for name in ("query", "key")]
        q, k = (F.rms_norm(x, (HEAD_DIM,), norm, 1e-3) for x, norm in zip(heads, norms, strict=False))
        seen = torch.ones(sequence, sequence).tril().triu(-2) > 0
        out = F.scaled_dot_product_attention(rotated(q), rotated(k), heads[2], seen, enable_gqa=True)
        x = x + F.linear(out.transpose(1, 2).reshape(batch, sequence, -1), p["attention.projection.weight"])
        y = F.rms_norm(x, (HIDDEN,), p["norm2.weight"], 1e-3)
        gate, up = F.linear(y, p["feed_forward.gate_up.weight"]).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, p["feed_forward.down.weight"])

    return block


def test_a_block_with_all_options_equals_its_transcription_in_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    block = models.gpt(1, HIDDEN, HEADS, 12, 7, head_dim=HEAD_DIM, normed_heads=True, window=3, eps=1e-3, **LLAMA)[1]
    x = np.random.default_rng(1).standard_normal((3, 7, HIDDEN))
    assert_equals_torch(torch, block, transcription(torch), x)


def test_of_the_blocks_every_so_many_attend_to_all():
    model = models.gpt(5, 16, 4, 12, 7, window=3, full_every=2)
    assert [block.attention.window for block in model.blocks[1:-1]] == [3, None, 3, None, 3]


def test_round_a_ring_there_is_no_window():
    with pytest.raises(ValueError, match="gpt: window=3, but attention round context=2 sees all keys"):
        models.gpt(1, 16, 4, 12, 8, Plan(context=2).mesh(0), window=3)


def test_as_many_keys_as_queries_are_plain_attention():
    grouped = GroupedQueryAttention(16, 4, kv_heads=4)
    plain = models.gpt(1, 16, 4, 12, 7)[1].attention
    weight = grouped.qkv.weight.numpy().reshape(4, 3, 4, 16)  # (heads, 3, head_dim, hidden)
    bias = grouped.qkv.bias.numpy().reshape(4, 3, 4)
    plain.load_state_dict({
        "qkv.weight": weight.swapaxes(0, 1).reshape(48, 16), "qkv.bias": bias.swapaxes(0, 1).reshape(48),
        "projection.weight": grouped.projection.weight, "projection.bias": grouped.projection.bias,
    })  # fmt: skip
    x = minidl.randn(2, 5, 16)
    np.testing.assert_allclose(grouped(x).numpy(), plain(x).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kv_heads=3), "heads=4 is not divisible by kv_heads=3"),
        (dict(positions="sinusoidal"), "positions='sinusoidal', choose one of learned, rotary"),
        (dict(feed_forward="elu"), "feed_forward='elu', choose one of gelu, relu, swiglu"),
        (dict(head_dim=0), "gpt: head_dim=0 is not a whole number of at least 1"),
        (dict(window=0), "gpt: window=0 is not a whole number of at least 1"),
        (dict(window=2, full_every=0), "gpt: full_every=0 is not a whole number of at least 1"),
        (dict(latent=LATENT), "latent attention has positions='rotary', a key for each query"),
        (dict(latent=LATENT, positions="rotary", kv_heads=2), "latent attention has positions='rotary', a key for"),
        (dict(latent=LATENT._replace(kv_rank=0), positions="rotary"), "gpt: latent kv_rank=0 is not a whole number"),
        (dict(latent=LATENT._replace(rotary_dim=3), positions="rotary"), "latent rotary_dim=3 is odd"),
        (dict(head_dim=5, positions="rotary"), "head_dim=5 is odd, and rotary positions turn pairs"),
        (dict(norm="batch"), "norm='batch', choose one of layer, rms"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.gpt(1, 16, 4, 12, 7, **options)


TEXT = np.random.default_rng(0).integers(12, size=(40, 7))
SENTENCES = data.ArrayDataset(TEXT[:, :-1], TEXT[:, 1:])


def trained(plan, **options):
    return train(
        lambda mesh: models.gpt(2, HIDDEN, HEADS, 12, 6, mesh, dropout=0.1, **options), SENTENCES, plan,
        optimizer=lambda p: optim.SGD(p, lr=0.5, momentum=0.9), loss=nn.CrossEntropyLoss(), batch_size=16, steps=6,
        dtype="float64", timeout=120,
    )  # fmt: skip


PLANS = [Plan(data=2, pipeline=2, micro_batches=2), Plan(tensor=2), Plan(pipeline=2, tensor=2, micro_batches=2)]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_llamas_variant_trains_under_plans_as_on_one_worker(plan):
    options = dict(window=3, full_every=2) | LLAMA
    got, expected = trained(plan, **options), trained(Plan(), **options)
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-10)
    ours, theirs = got.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-8, atol=1e-10, err_msg=name)


def test_a_tied_head_trains_as_a_plain_loop_trains_it():
    got = train(
        lambda mesh: models.gpt(1, 8, 2, 12, 6, tied=True), SENTENCES, Plan(), loss=nn.CrossEntropyLoss(),
        optimizer=lambda p: optim.SGD(p, lr=0.5, momentum=0.9), batch_size=40, steps=2, dtype="float64",
    )  # fmt: skip
    model = models.gpt(1, 8, 2, 12, 6, tied=True)
    model.materialize(0, dtype="float64")
    with minidl.device("meta"):
        fresh = models.gpt(1, 8, 2, 12, 6, tied=True)
    fresh.materialize(0, dtype="float64")
    model.load_state_dict(fresh.state_dict())
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for loss in got.losses:
        optimizer.zero_grad()
        value = nn.CrossEntropyLoss()(model(minidl.tensor(SENTENCES.x)), minidl.tensor(SENTENCES.y))
        value.backward()
        assert value.item() == pytest.approx(loss, rel=1e-12)
        optimizer.step()
    expected = model.state_dict()
    for name, array in got.state_dict().items():  # the shared matrix is there under both names
        np.testing.assert_allclose(array, expected.pop(name).numpy(), atol=1e-10, err_msg=name)
    assert not expected
