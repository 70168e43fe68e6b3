"""Clipping of gradients is PyTorch's."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn

NORMS = [0.5, 1.0, 2.0, 3.0, math.inf]


def with_gradients(*gradients):
    parameters = []
    for gradient in gradients:
        parameters.append(nn.Parameter(() if gradient is None else gradient.shape, init=nn.init.constant(0)))
        parameters[-1].grad = None if gradient is None else minidl.tensor(gradient)
    return parameters


def theirs(*gradients):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    parameters = []
    for gradient in gradients:
        parameters.append(torch.nn.Parameter(torch.zeros(() if gradient is None else gradient.shape).double()))
        parameters[-1].grad = None if gradient is None else torch.tensor(gradient)
    return torch.nn.utils, parameters


def assert_same_gradients(ours, others):
    for p, q in zip(ours, others, strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)


@settings(max_examples=25)
@given(
    shapes=st.lists(st.sampled_from([(), (0,), (3,), (2, 5), (1, 1, 4)]), min_size=1, max_size=4),
    norm_type=st.sampled_from(NORMS),
    max_norm=st.floats(0.01, 100),
    wrong=st.sampled_from([None, math.nan, math.inf]),
)
def test_gradients_are_clipped_by_their_norm_as_in_pytorch(shapes, norm_type, max_norm, wrong):
    generator = np.random.default_rng(len(shapes))
    assume(norm_type < math.inf or (0,) not in shapes)  # which PyTorch refuses
    gradients = [np.asarray(generator.standard_normal(shape)) for shape in shapes] + [None]
    if wrong is not None and gradients[0].size:
        gradients[0].flat[0] = wrong
    ours = with_gradients(*gradients)
    utils, others = theirs(*gradients)
    total = nn.utils.get_total_norm([p.grad for p in ours if p.grad is not None], norm_type)
    with np.errstate(invalid="ignore"):
        clipped = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    expected = utils.clip_grad_norm_(others, max_norm, norm_type)
    assert clipped.shape == () and clipped.dtype == minidl.float64
    assert clipped.item() == pytest.approx(expected.item(), rel=1e-12, nan_ok=True)
    assert total.item() == pytest.approx(expected.item(), rel=1e-12, nan_ok=True)
    assert_same_gradients(ours, others)


def test_gradients_are_clipped_by_value_as_in_pytorch():
    gradients = [np.array([-3.0, 0.5, math.nan, math.inf]), None, np.array(7.0)]
    ours = with_gradients(*gradients)
    arrays = [p.grad.data for p in ours if p.grad is not None]
    utils, others = theirs(*gradients)
    nn.utils.clip_grad_value_(ours, 1.5)
    utils.clip_grad_value_(others, 1.5)
    assert_same_gradients(ours, others)
    assert all(p.grad.data is a for p, a in zip((ours[0], ours[2]), arrays, strict=True))  # in place


def test_a_norm_that_is_not_finite_is_an_error_if_wanted_and_leaves_the_gradients_alone():
    (p,) = with_gradients(np.array([1.0, math.inf]))
    with pytest.raises(RuntimeError, match="the norm of the gradients is inf"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert p.grad.numpy().tolist() == [1.0, math.inf]


def test_without_gradients_the_norm_is_zero_and_a_norm_of_zero_is_none():
    assert nn.utils.clip_grad_norm_(with_gradients(None), 1.0).item() == 0
    with pytest.raises(ValueError, match="norm_type=0"):
        nn.utils.get_total_norm([minidl.ones(2)], 0)
