"""BERT: its blocks are PyTorch's encoder layers, it guesses masked tokens from both sides, it is split as GPT is."""

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.models.bert import bert, mask_tokens
from minidl.parallel import Plan, train
from tests.models.oracle import assert_equals_torch

pytestmark = pytest.mark.usefixtures("warm_workers")

WORDS, MASK = 11, 11  # the mask is one more token


def test_a_block_equals_pytorchs_encoder_layer():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    block = bert(1, 16, 4, 12, 6, dropout=0.0)[1]
    names = {
        "self_attn.in_proj_": "attention.qkv.", "self_attn.out_proj.": "attention.projection.",
        "linear1.": "feed_forward.up.", "linear2.": "feed_forward.down.", "norm1.": "norm1.", "norm2.": "norm2.",
    }  # fmt: skip
    theirs = torch.nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True, dtype=torch.float64
    )

    def transcription(x, p):
        state = {their + kind: p[our + kind] for their, our in names.items() for kind in ("weight", "bias")}
        return torch.func.functional_call(theirs, state, (x,))

    assert_equals_torch(torch, block, transcription, np.random.default_rng(0).standard_normal((3, 6, 16)))


def test_the_embedding_and_the_head_equal_their_transcription_in_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    F = torch.nn.functional
    model = bert(0, 16, 4, 12, 6, dropout=0.0)

    def transcription(indices, p):
        tokens, segments = indices[:, 0], indices[:, 1]
        x = p["0.token.weight"][tokens] + p["0.position.weight"] + p["0.segment.weight"][segments]
        x = F.layer_norm(x, (16,), p["0.norm.weight"], p["0.norm.bias"], 1e-12)
        x = F.gelu(F.linear(x, p["1.dense.weight"], p["1.dense.bias"]))
        x = F.layer_norm(x, (16,), p["1.norm.weight"], p["1.norm.bias"], 1e-12)
        return F.linear(x, p["1.linear.weight"], p["1.linear.bias"])

    generator = np.random.default_rng(0)
    pairs = np.stack([generator.integers(12, size=(3, 6)), generator.integers(2, size=(3, 6))], 1)
    assert_equals_torch(torch, model, transcription, pairs)


def test_without_segments_all_are_the_first_one():
    model = bert(1, 16, 4, 12, 6).eval()
    text = np.random.default_rng(0).integers(12, size=(3, 6))
    pairs = np.stack([text, np.zeros_like(text)], 1)
    np.testing.assert_array_equal(model(minidl.tensor(text)).numpy(), model(minidl.tensor(pairs)).numpy())


@pytest.mark.parametrize(("options", "count"), [
    ({}, 109_514_298), (dict(layers=24, hidden=1024, heads=16), 335_174_458)
], ids=["base", "large"])  # fmt: skip
def test_bert_has_as_many_parameters_as_its_published_checkpoints(options, count):
    with minidl.device("meta"):
        assert sum(p.numel() for p in bert(tied=True, **options).parameters()) == count


def test_15_percent_of_the_tokens_are_to_be_guessed_and_most_of_them_hidden():
    text = np.random.default_rng(0).integers(1000, size=(500, 100))
    x, y = mask_tokens(text, 1000, 1000, np.random.default_rng(1))
    chosen = y != -100
    assert chosen.mean() == pytest.approx(0.15, abs=0.005)
    np.testing.assert_array_equal(y[chosen], text[chosen])
    np.testing.assert_array_equal(x[~chosen], text[~chosen])
    assert (x[chosen] == 1000).mean() == pytest.approx(0.8, abs=0.02)
    assert (x[chosen] == text[chosen]).mean() == pytest.approx(0.1, abs=0.02)


def said_twice(samples, generator):
    """Texts (samples, 10) whose second half is the first: a word is known from the same place of the other half."""
    half = generator.integers(WORDS, size=(samples, 5))
    return mask_tokens(np.tile(half, 2), WORDS, MASK, generator)


def test_a_small_bert_guesses_words_from_both_sides():
    minidl.manual_seed(0)
    generator = np.random.default_rng(0)
    model = bert(1, 32, 4, WORDS + 1, 10, dropout=0.0)
    optimizer, loss = optim.AdamW(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
    for _ in range(250):
        x, y = said_twice(64, generator)
        optimizer.zero_grad()
        loss(model(minidl.tensor(x)), minidl.tensor(y)).backward()
        optimizer.step()
    x, y = said_twice(500, generator)
    with minidl.no_grad():
        right = (model(minidl.tensor(x)).numpy().argmax(-1) == y)[y >= 0].mean()
    assert right >= 0.8  # who sees only what came before guesses half of them, by chance it is 0.09


@pytest.mark.parametrize("plan", [Plan(data=2, micro_batches=2), Plan(tensor=2, pipeline=2)], ids=str)
def test_a_bert_trains_under_plans_as_on_one_worker(plan):
    dataset = data.ArrayDataset(*said_twice(40, np.random.default_rng(0)))

    def run(plan):
        return train(
            lambda mesh: bert(2, 16, 4, WORDS + 1, 10, mesh), dataset, plan, loss=nn.CrossEntropyLoss(),
            optimizer=lambda p: optim.SGD(p, lr=0.5, momentum=0.9), batch_size=16, steps=6, dtype="float64",
            timeout=120,
        )  # fmt: skip

    got, expected = run(plan), run(Plan())
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-10)
    for name, array in expected.state_dict().items():
        np.testing.assert_allclose(got.state_dict()[name], array, rtol=1e-8, atol=1e-10, err_msg=name)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="bert: hidden=10 is not divisible by heads=4"):
        models.bert(1, 10, 4, 12, 6)
