"""Attention with all its options, and the layers around it, give PyTorch's outputs and gradients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.nn import functional as F

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

GENERATOR = np.random.default_rng(0)


def array(*shape):
    return GENERATOR.standard_normal(shape).astype(np.float32)


def mask(kind, *shape):
    """Of bools that are true for one key in four, but never for the first; or of floats; or None."""
    if kind == "bools":
        bools = GENERATOR.random(shape) < 0.25
        bools[..., 0] = False
        return bools
    return array(*shape) if kind == "floats" else None


def pair(mine, other):
    mine.load_state_dict({name: value.numpy() for name, value in other.state_dict().items()})
    return mine, other


def tensors(arrays, make):
    """The arrays as tensors, the same one for the same array; None for None."""
    made = {id(a): make(a) for a in arrays if a is not None}
    return [None if a is None else made[id(a)] for a in arrays]


def assert_same(mine, other, inputs, options, tolerance=2e-5):
    ours = tensors(inputs, lambda a: minidl.tensor(a, requires_grad=a.dtype.kind == "f"))
    theirs = tensors(inputs, lambda a: torch.tensor(a, requires_grad=a.dtype.kind == "f"))
    out, expected = mine(*ours, **options), other(*theirs, **options)
    if isinstance(out, tuple):
        assert (out[1] is None) == (expected[1] is None)
        if out[1] is not None:
            np.testing.assert_allclose(out[1].numpy(), expected[1].detach().numpy(), atol=tolerance)
        out, expected = out[0], expected[0]
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), atol=tolerance)
    weights = array(*out.shape)
    out.backward(minidl.tensor(weights))
    expected.backward(torch.tensor(weights))
    named = dict(other.named_parameters()) if isinstance(mine, nn.Module) else {}
    parameters = [(p, named[name]) for name, p in mine.named_parameters()] if named else []
    for a, b in [*zip(ours, theirs, strict=True), *parameters]:
        if a is not None and a.requires_grad:
            scale = max(1, b.grad.abs().max().item())
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=tolerance * scale)


@pytest.mark.parametrize("kind", ["bools", "floats"])
def test_large_masked_attention_is_that_of_pytorch(kind):
    inputs = [array(4, 3, 90, 8), array(4, 3, 70, 8), array(4, 3, 70, 5), mask(kind, 4, 1, 90, 70)]
    if kind == "bools":
        inputs[3][0, 0, 5] = False  # a query that sees no key
    assert_same(F.scaled_dot_product_attention, torch.nn.functional.scaled_dot_product_attention, inputs, {})


def test_a_window_is_a_mask_of_what_is_too_far_back():
    inputs = [array(4, 3, 90, 8) for _ in range(3)]
    seen = torch.tensor(np.triu(np.tri(90, dtype=bool), -6))
    assert_same(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, window=7),
        lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, seen), inputs, {},
    )  # fmt: skip


def test_a_query_that_sees_no_key_gives_zeros_and_gets_no_gradient():
    q, k, v = (minidl.randn(3, 4).requires_grad_() for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v, minidl.tensor([[True] * 3, [False] * 3, [True] * 3]))
    out.sum().backward()
    assert not out.numpy()[1].any() and not q.grad.numpy()[1].any()
    assert all(np.isfinite(x.grad.numpy()).all() for x in (q, k, v))


def test_dropout_of_attention_zeroes_weights_and_keeps_their_mean():
    minidl.manual_seed(0)
    ones = minidl.ones(200, 50, 1)
    identity = minidl.tensor(np.eye(50, dtype=np.float32))
    weights = F.scaled_dot_product_attention(ones, ones, identity, dropout_p=0.25).numpy() * 50
    assert np.unique(weights.round(4)) == pytest.approx([0, 4 / 3], abs=1e-4)
    assert weights.mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("retain_graph", [False, True])
def test_the_gradient_of_attention_with_dropout_is_that_of_its_mask(retain_graph):
    q, k, v = (minidl.randn(5, 4, dtype="float64").requires_grad_() for _ in range(3))
    step = 1e-6 * minidl.randn(5, 4, dtype="float64")

    def out(q, k, v):
        minidl.manual_seed(7)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5).sum()

    out(q, k, v).backward(retain_graph=retain_graph)
    for i, x in enumerate((q, k, v)):
        moved = [y + step if i == j else y for j, y in enumerate((q, k, v))]
        back = [y - step if i == j else y for j, y in enumerate((q, k, v))]
        expected = (out(*moved).item() - out(*back).item()) / 2
        assert (x.grad * step).sum().item() == pytest.approx(expected, rel=1e-4)


@settings(max_examples=40)
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.booleans(), st.booleans(),
    st.sampled_from(["none", "bools", "floats"]), st.sampled_from(["none", "bools", "floats"]),
    st.sampled_from([None, True, False]), st.sampled_from(["batch", "batch first", "one"]),
    st.sampled_from(["self", "same widths", "other widths"]), st.booleans(),
)  # fmt: skip
def test_multihead_attention_is_that_of_pytorch(
    batch, queries, keys, bias, causal, padding, masked, average, layout, widths, by_head
):
    kdim, vdim = (3, 10) if widths == "other widths" else (8, 8)
    options = {"bias": bias, "batch_first": layout == "batch first"}
    if widths == "other widths":
        options |= {"kdim": kdim, "vdim": vdim}
    if widths == "self":
        keys = queries
    mine, other = pair(nn.MultiheadAttention(8, 2, **options), torch.nn.MultiheadAttention(8, 2, **options))
    if bias:
        values = array(24)
        mine.load_state_dict({**mine.state_dict(), "in_proj_bias": values})
        other.load_state_dict({**other.state_dict(), "in_proj_bias": torch.tensor(values)})
    leading = {"batch": lambda n: (n, batch), "batch first": lambda n: (batch, n), "one": lambda n: (n,)}[layout]
    query, key, value = array(*leading(queries), 8), array(*leading(keys), kdim), array(*leading(keys), vdim)
    if widths == "self":
        key = value = query
    rows = batch if layout != "one" else 1
    padded = mask(padding, *((rows, keys) if layout != "one" else (keys,)))
    attn_mask = mask(masked, *((2 * rows, queries, keys) if by_head else (queries, keys)))
    if padding != masked and "none" not in (padding, masked):  # PyTorch deprecates a mixture
        padded = None
    causal = causal and attn_mask is not None  # PyTorch needs both
    call = {"need_weights": average is not None, "average_attn_weights": bool(average), "is_causal": False}
    if causal:
        attn_mask = np.triu(np.ones((queries, keys), bool), 1)
        padded = None if padding == "floats" else padded
        call["is_causal"] = average is None and padded is None
    ours = [query, key, value, padded, attn_mask]

    def run(layer):
        return lambda q, k, v, p, m: layer(q, k, v, key_padding_mask=p, attn_mask=m, **call)

    class Mine(nn.Module):
        def __init__(self):
            self.layer = mine

        def forward(self, *inputs):
            return run(mine)(*inputs)

    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = other

        def forward(self, *inputs):
            return run(other)(*inputs)

    assert_same(Mine(), Other(), ours, {})


@pytest.mark.parametrize("need_weights", [False, True])
def test_causal_attention_without_a_mask_is_that_with_a_triangular_one(need_weights):
    layer = nn.MultiheadAttention(8, 2)
    x = minidl.randn(5, 3, 8)
    triangle = minidl.tensor(np.triu(np.ones((5, 5), bool), 1))
    causal, _ = layer(x, x, x, need_weights=need_weights, is_causal=True)
    masked, _ = layer(x, x, x, need_weights=need_weights, attn_mask=triangle)
    np.testing.assert_allclose(causal.numpy(), masked.numpy(), atol=1e-6)


@pytest.mark.parametrize("options", [
    {}, {"activation": "gelu", "norm_first": True, "batch_first": True}, {"bias": False, "layer_norm_eps": 0.1},
])  # fmt: skip
@pytest.mark.parametrize("masked", [False, True])
def test_a_transformer_block_is_the_encoder_layer_of_pytorch(options, masked):
    mine = nn.TransformerBlock(12, 3, 20, 0.0, **options)
    mine, other = pair(mine, torch.nn.TransformerEncoderLayer(12, 3, 20, 0.0, **options))
    inputs = [array(5, 4, 12)]
    if masked:
        batch, length = (5, 4) if options.get("batch_first") else (4, 5)
        inputs += [mask("bools", length, length), mask("bools", batch, length)]
    assert_same(mine, other, inputs, {})


def test_a_transformer_block_drops_out_in_training_only():
    block = nn.TransformerBlock(8, 2, 16, dropout=0.5, batch_first=True)
    x = minidl.randn(2, 3, 8)
    assert np.abs(block(x).numpy() - block(x).numpy()).max() > 0.01
    block.eval()
    np.testing.assert_array_equal(block(x).numpy(), block(x).numpy())


def test_on_meta_a_transformer_block_has_the_shapes_of_cpu():
    with minidl.device("meta"):
        block = nn.TransformerBlock(12, 3, 20, batch_first=True)
        x = minidl.zeros(2, 5, 12).requires_grad_()
        y = block(x, src_key_padding_mask=minidl.zeros(2, 5, dtype="bool"))
        y.sum().backward()
    assert y.shape == x.grad.shape == (2, 5, 12)
    assert all(p.grad.shape == p.shape for p in block.parameters())


def test_attention_to_an_empty_sequence_is_empty():
    x = minidl.ones(0, 2, 4)
    out, weights = nn.MultiheadAttention(4, 2)(x, x, x)
    assert out.shape == (0, 2, 4) and weights.shape == (2, 0, 0)


def test_the_projections_start_as_in_pytorch():
    layer = nn.MultiheadAttention(64, 2)
    bound = math.sqrt(6 / (64 + 3 * 64))
    assert 0.99 * bound < np.abs(layer.in_proj_weight.numpy()).max() <= bound
    assert not layer.in_proj_bias.numpy().any() and not layer.out_proj.bias.numpy().any()


ONES = minidl.ones(2, 3)
X = minidl.ones(5, 2, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.scaled_dot_product_attention(ONES, *[minidl.ones(2, 4)] * 2), "keys as wide as queries"),
        (lambda: F.scaled_dot_product_attention(ONES[0], ONES, ONES), "two dimensions at least"),
        (lambda: F.scaled_dot_product_attention(ONES, ONES, ONES, minidl.ones(3, 2)), "mask.*do not broadcast"),
        (lambda: F.scaled_dot_product_attention(ONES, ONES, ONES, minidl.ones(2, 2), 0, True), "not both"),
        (lambda: F.scaled_dot_product_attention(ONES, ONES, ONES, dropout_p=1), "p=1"),
        (lambda: F.scaled_dot_product_attention(ONES, ONES, ONES, window=2), "window=2 is of the last keys.*is_causal"),
        (lambda: F.scaled_dot_product_attention(ONES, ONES, ONES, is_causal=True, window=0), "window=0 is not a whole"),
        (lambda: F.scaled_dot_product_attention(ONES, ONES, ONES, enable_gqa=True), "a multiple of key's"),
        (lambda: nn.MultiheadAttention(8, 3), "embed_dim=8 is not divisible by num_heads=3"),
        (lambda: nn.MultiheadAttention(8, 2)(X, X, X[:4]), r"as many values as keys, not query \(5, 2, 8\)"),
        (lambda: nn.MultiheadAttention(8, 2)(X, X[0], X[0]), "all with a batch or all without"),
        (lambda: nn.MultiheadAttention(8, 2)(X, X, X, attn_mask=minidl.ones(5, 4)), r"be \(5, 5\) or \(4, 5, 5\)"),
        (lambda: nn.MultiheadAttention(8, 2)(X, X, X, minidl.ones(5, 2)), r"key_padding_mask has shape \(5, 2\)"),
        (lambda: nn.TransformerBlock(8, 2, activation="tanh"), "activation='tanh'"),
    ],
)  # fmt: skip
def test_wrong_shapes_and_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mask_of_integers_is_refused():
    mask = minidl.zeros(5, 5, dtype="int64")
    for call in (
        lambda: nn.MultiheadAttention(8, 2)(X, X, X, attn_mask=mask),
        lambda: nn.MultiheadAttention(8, 2)(X, X, X, mask[:2]),
        lambda: F.scaled_dot_product_attention(X[:, 0], X[:, 0], X[:, 0], mask),
    ):
        with pytest.raises(TypeError, match="a mask is of bools or of floats to add, not of int64"):
            call()
