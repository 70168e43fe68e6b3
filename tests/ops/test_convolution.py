"""Convolutions are PyTorch's, for all sizes and options."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl.nn import functional as ours

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
theirs = torch.nn.functional


def same(name, inputs, **options):
    """The function `name` gives PyTorch's values and gradients, in float64, of inputs whose memory is in any order."""
    mine = [minidl.tensor(a, "float64").requires_grad_() for a in inputs]
    for tensor, array in zip(mine, inputs, strict=True):
        tensor.data = array  # as it lies in memory
    other = [torch.tensor(a.copy("C"), requires_grad=True) for a in inputs]
    out, expected = getattr(ours, name)(*mine, **options), getattr(theirs, name)(*other, **options)
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-9)
    grad = np.random.default_rng(2).standard_normal(out.shape)
    out.backward(minidl.tensor(grad, "float64"))
    expected.backward(torch.tensor(grad))
    for a, b in zip(mine, other, strict=True):
        assert a.grad.shape == a.shape
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-9, atol=1e-9)


ORDERS = {
    "contiguous": lambda x: x,
    "reversed": lambda x: x[:, :, ::-1],
    "channels last": lambda x: np.moveaxis(np.moveaxis(x, 1, -1).copy("C"), -1, 1),
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
}


@st.composite
def cases(draw):
    """(number of dimensions, x, weight, bias, options) for which a convolution has a result."""
    dims = draw(st.integers(1, 2))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    per_dim = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dims))  # noqa: E731
    kernel, stride, padding, dilation = per_dim(1, 4), per_dim(1, 3), per_dim(0, 3), per_dim(1, 3)
    groups, batch = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    reach = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = tuple(least + draw(st.integers(0, 5)) for least in reach)
    c, o = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    x = ORDERS[draw(st.sampled_from(sorted(ORDERS)))](generator.standard_normal((batch, c, *size)))
    weight = ORDERS[draw(st.sampled_from(["contiguous", "reversed"]))](
        generator.standard_normal((o, c // groups, *kernel))
    )
    bias = generator.standard_normal(o)
    return dims, x, weight, bias, dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


@given(cases(), st.booleans())
@settings(max_examples=60)
def test_a_convolution_is_that_of_pytorch(case, with_bias):
    dims, x, weight, bias, options = case
    same(f"conv{dims}d", [x, weight, bias] if with_bias else [x, weight], **options)


@given(cases(), st.data())
@settings(max_examples=60)
def test_a_transposed_convolution_is_that_of_pytorch(case, data):
    dims, x, weight, _, options = case
    # The weight leads from the channels of a convolution's result to those of its input; PyTorch takes no empty batch.
    y = np.random.default_rng(0).standard_normal((max(1, len(x)), len(weight), *x.shape[2:]))
    bias = np.random.default_rng(1).standard_normal(weight.shape[1] * options["groups"])
    more = tuple(data.draw(st.integers(0, s - 1)) for s in options["stride"])
    sizes = zip(
        x.shape[2:], options["stride"], options["padding"], options["dilation"], weight.shape[2:], more, strict=True
    )
    if min((n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, s, p, d, k, m in sizes) < 1:
        return
    same(f"conv_transpose{dims}d", [y, weight, bias], output_padding=more, **options)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@given(cases(), st.sampled_from(["same", "valid"]))
@settings(max_examples=20)
def test_padding_by_a_word_is_that_of_pytorch(case, padding):
    dims, x, weight, bias, options = case
    stride = 1 if padding == "same" else options["stride"]
    reach = [d * (k - 1) for d, k in zip(options["dilation"], weight.shape[2:], strict=True)]
    if padding == "valid" and any(n <= r for n, r in zip(x.shape[2:], reach, strict=True)):
        return
    same(f"conv{dims}d", [x, weight, bias], **options | {"padding": padding, "stride": stride})


@pytest.mark.parametrize(
    ("name", "dims"), [("conv1d", 1), ("conv2d", 2), ("conv_transpose1d", 1), ("conv_transpose2d", 2)]
)
def test_an_input_without_batch_dimension_gives_such_a_result(name, dims):
    generator = np.random.default_rng(0)
    same(name, [generator.standard_normal((3, *(6, 5)[:dims])), generator.standard_normal((3, 3, *(3, 2)[:dims]))])
