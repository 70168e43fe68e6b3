"""Every sample of an epoch is in one micro-batch, whatever the cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minidl import data
from minidl.data import batches

LENGTHS = st.integers(0, 60)
COUNTS = st.integers(1, 5)


@given(LENGTHS, COUNTS, COUNTS)
def test_a_cut_is_contiguous_complete_and_even(length, replicas, micro_batches):
    indices = np.random.default_rng(0).permutation(length)
    parts = data.split_batch(indices, replicas, micro_batches)
    assert len(parts) == replicas and all(len(p) == micro_batches for p in parts)
    flat = [m for replica in parts for m in replica]
    np.testing.assert_array_equal(np.concatenate(flat), indices)
    for sizes in ([sum(map(len, p)) for p in parts], *([len(m) for m in p] for p in parts)):
        assert max(sizes) - min(sizes) <= 1


@given(LENGTHS, st.integers(1, 20), st.booleans())
def test_the_batches_of_an_epoch_are_all_its_samples(length, batch_size, drop_last):
    order = data.epoch_order(length, 0, 0)
    found = list(batches.batches(order, batch_size, drop_last))
    kept = length - length % batch_size if drop_last else length
    assert sum(map(len, found)) == kept
    np.testing.assert_array_equal(np.concatenate([order[:0], *found]), order[:kept])
    assert all(len(b) == batch_size for b in found[:-1])
    for i, b in enumerate(found):
        np.testing.assert_array_equal(data.batch_indices(order, i, batch_size), b)


def test_the_order_is_a_permutation_keyed_by_seed_and_epoch():
    order = data.epoch_order(100, 1, 2)
    assert sorted(order) == list(range(100))
    np.testing.assert_array_equal(order, data.epoch_order(100, 1, 2))
    assert (order != data.epoch_order(100, 1, 3)).any() and (order != data.epoch_order(100, 2, 2)).any()
