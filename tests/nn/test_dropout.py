"""Dropout, and the keys of its masks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import nn, ops, random
from minidl.random import Scope


def masks(samples, step=0, seed=0, block=0, draws=1, shape=(6, 5)):
    with random.scope(Scope(seed, step, np.asarray(samples), block)):
        return [ops.dropout(minidl.ones(len(samples), *shape), 0.5).numpy() for _ in range(draws)][-1]


@given(st.permutations(range(12)), st.integers(0, 12), st.integers(0, 12))
def test_the_mask_of_a_sample_does_not_depend_on_how_samples_are_batched(order, a, b):
    whole = masks(range(12))
    ends = sorted((a, b))
    for part in np.split(np.array(order), ends):
        np.testing.assert_array_equal(masks(part), whole[part])


def test_masks_differ_by_step_seed_block_layer_and_sample():
    whole = masks(range(8))
    for other in (
        masks(range(8), step=1),
        masks(range(8), seed=1),
        masks(range(8), seed=2**40),
        masks(range(8), block=1),
        masks(range(8), draws=2),
        masks(range(1, 9)),
    ):
        assert 0.3 < np.mean(other != whole) < 0.7


def test_the_uniform_numbers_are_uniform():
    with random.scope(Scope(0, 0, np.arange(1000))):
        u = random.uniform((1000, 100))
    assert u.dtype == np.float32 and u.min() >= 0 and u.max() < 1
    counts, _ = np.histogram(u, 10, (0, 1))
    assert np.abs(counts / 1e4 - 1).max() < 0.05
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.1


def test_dropout_keeps_the_mean_and_sends_gradients_only_where_it_kept():
    minidl.manual_seed(0)
    x = minidl.ones(100, 100).requires_grad_()
    y = nn.Dropout(0.25)(x)
    y.sum().backward()
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(y.numpy().mean() - 1) < 0.05
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_dropout_does_nothing_in_evaluation():
    x = minidl.ones(3)
    assert nn.Dropout(0.5).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x


def test_dropout_on_meta_costs_one_call_each_way():
    x = minidl.ones(4, 3, device="meta").requires_grad_()
    with minidl.kernels.meta.record() as calls:
        ops.dropout(x, 0.5).backward(x.detach())
    assert [call.name for call in calls] == ["dropout", "dropout_grad"]


def test_dropout_of_channels_keeps_or_drops_each_as_a_whole():
    minidl.manual_seed(0)
    y = nn.Dropout2d(0.25)(minidl.ones(40, 50, 3, 2)).numpy()
    assert (y == y[:, :, :1, :1]).all()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(y.mean() - 1) < 0.05
