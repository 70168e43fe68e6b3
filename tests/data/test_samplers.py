"""Samplers: who sees what, and how often."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import data

LENGTHS = st.integers(1, 60)
COUNTS = st.integers(1, 5)


@given(LENGTHS, COUNTS, st.booleans(), st.booleans())
def test_the_replicas_of_a_distributed_sampler_see_all_samples_equally_often(length, replicas, shuffle, drop_last):
    samplers = [
        data.DistributedSampler(range(length), replicas, r, shuffle, drop_last=drop_last) for r in range(replicas)
    ]
    seen = [list(s) for s in samplers]
    assert {len(s) for s in seen} == {len(samplers[0])}
    every = sorted(i for s in seen for i in s)
    if drop_last:
        assert len(set(every)) == len(every) == length - length % replicas
    else:
        assert set(every) == set(range(length)) and len(every) < length + replicas


@given(st.integers(1, 12), st.integers(1, 30), st.booleans())
def test_an_unshuffled_distributed_sampler_is_pytorchs(length, replicas, drop_last):
    torch_data = pytest.importorskip("torch.utils.data", reason="PyTorch is the oracle of these tests")
    for rank in {0, replicas // 2, replicas - 1}:
        theirs = torch_data.DistributedSampler(range(length), replicas, rank, shuffle=False, drop_last=drop_last)
        ours = data.DistributedSampler(range(length), replicas, rank, shuffle=False, drop_last=drop_last)
        assert list(ours) == list(theirs) and len(ours) == len(theirs)


def test_a_distributed_sampler_shuffles_anew_each_epoch():
    sampler = data.DistributedSampler(range(50), 2, 0)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    with pytest.raises(ValueError, match="rank 2 is not one of 2 replicas"):
        data.DistributedSampler(range(50), 2, 2)


WEIGHTS = np.array([0.0, 1.0, 2.0, 5.0])


def test_weighted_draws_come_as_often_as_their_weights_say():
    draws = 20_000
    counts = np.bincount(list(data.WeightedRandomSampler(WEIGHTS, draws)), minlength=4)
    expected = draws * WEIGHTS / WEIGHTS.sum()
    assert (abs(counts - expected) <= 4 * np.sqrt(expected)).all()


def test_weighted_draws_without_replacement_leave_the_others_their_weights():
    sampler = data.WeightedRandomSampler(WEIGHTS, 2, replacement=False)
    pairs = [tuple(sampler) for _ in range(4000)]
    assert all(a != b and 0 not in (a, b) for a, b in pairs)
    for first, second in ((3, 2), (3, 1), (1, 3)):  # P(a, then b) = w_a / 8 · w_b / (8 - w_a)
        expected = WEIGHTS[first] / 8 * WEIGHTS[second] / (8 - WEIGHTS[first])
        found = np.mean([pair == (first, second) for pair in pairs])
        assert abs(found - expected) < 4 * np.sqrt(expected / 4000)


def test_weighted_draws_are_keyed_by_seed_and_epoch():
    def epochs(seed):
        sampler = data.WeightedRandomSampler(np.ones(100), 50, seed=seed)
        return [list(sampler) for _ in range(2)]

    first, second = epochs(0)
    assert first != second and epochs(0) == [first, second] and epochs(1)[0] != first


@pytest.mark.parametrize(
    ("weights", "number", "replacement", "message"),
    [
        ([1, -1], 1, True, "finite numbers of at least 0"),
        ([1, np.nan], 1, True, "finite numbers of at least 0"),
        ([0, 0], 1, True, "cannot draw 1 samples with replacement from 0 of positive weight"),
        ([0, 1, 1], 3, False, "cannot draw 3 samples without replacement from 2"),
        ([1, 1], 0, True, "cannot draw 0 samples"),
    ],
)
def test_weights_that_allow_no_draw_are_refused(weights, number, replacement, message):
    with pytest.raises(ValueError, match=message):
        data.WeightedRandomSampler(weights, number, replacement)


def test_a_loader_takes_its_order_from_a_sampler():
    dataset = data.ArrayDataset(np.arange(10), np.arange(10))
    loaders = [data.DataLoader(dataset, 2, sampler=data.DistributedSampler(dataset, 2, rank)) for rank in range(2)]
    seen = [i for loader in loaders for _, y in loader for i in y.numpy()]
    assert sorted(seen) == list(range(10)) and len(loaders[0]) == 3
    with pytest.raises(ValueError, match="sampler"):
        data.DataLoader(dataset, 2, shuffle=True, sampler=loaders[0].sampler)
    short = data.DataLoader(dataset, 2, sampler=data.WeightedRandomSampler(np.arange(10), 5))
    assert len(short) == 3 and 0 not in [i for _, y in islice(short, 3) for i in y.numpy()]


def test_a_batch_sampler_gives_whole_batches():
    dataset = data.ArrayDataset(np.arange(10), np.arange(10))
    loader = data.DataLoader(dataset, batch_sampler=[[9], [1, 2, 3], [0, 5]])
    assert [y.numpy().tolist() for _, y in loader] == [[9], [1, 2, 3], [0, 5]] and len(loader) == 3
    with pytest.raises(ValueError, match="no effect with a batch_sampler"):
        data.DataLoader(dataset, 2, batch_sampler=[[1]])
