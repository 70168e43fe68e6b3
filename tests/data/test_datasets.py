"""Data sets: those shipped, and those made of others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import data

FIRST = [1, 8, 7, 9, 8, 2, 9, 5]


def test_the_digits_have_their_documented_shapes_and_every_class():
    train, test = data.digits()
    assert (len(train), len(test)) == (1437, 360)
    x, y = train[np.arange(1437)]
    assert x.shape == (1437, 1, 8, 8) and x.dtype == np.float32 and y.dtype == np.int64
    assert x.min() == 0 and x.max() == 1
    assert set(y) == set(range(10)) == set(test.y)
    assert train[3][0].shape == (1, 8, 8)


def test_the_split_of_the_digits_is_always_the_same_and_shares_no_image():
    train, test = data.digits()
    np.testing.assert_array_equal(train.x, data.digits()[0].x)
    assert train.y[:8].tolist() == FIRST
    images = {x.tobytes() for x in train.x}
    assert sum(x.tobytes() in images for x in test.x) == 0


def test_synthetic_data_is_keyed_by_its_seed():
    a, b, c = data.synthetic(20), data.synthetic(20), data.synthetic(20, seed=1)
    assert a.x.shape == (20, 784) and a.x.dtype == np.float32
    np.testing.assert_array_equal(a.x, b.x)
    assert (a.x != c.x).all()


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="x has 3 samples, y has 2"):
        data.ArrayDataset(np.zeros(3), np.zeros(2))


def numbered(start, length):
    """Sample i is (start + i, -(start + i))."""
    x = np.arange(start, start + length)
    return data.ArrayDataset(x, -x)


def test_tensors_make_a_data_set_too():
    dataset = data.ArrayDataset(minidl.ones(3, 2), minidl.tensor([4, 5, 6]))
    x, y = dataset[np.array([2, 0])]
    assert x.tolist() == [[1, 1], [1, 1]] and y.tolist() == [6, 4] and isinstance(x, np.ndarray)
    with pytest.raises(ValueError, match=r"x of shape \(\) and y of shape \(\), both need samples"):
        data.ArrayDataset(1.0, 2)


def test_a_subset_is_its_samples_in_its_order():
    subset = data.Subset(numbered(0, 10), [7, 3, -1])
    assert len(subset) == 3 and subset[0] == (7, -7) and subset[-1] == (9, -9)
    assert subset[np.array([1, 1, 0])][0].tolist() == [3, 3, 7]
    with pytest.raises(IndexError, match="index 10 in a data set of 10 samples"):
        data.Subset(numbered(0, 10), [3, 10])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.data())
def test_data_sets_in_a_row_are_like_their_arrays_in_a_row(lengths, draw):
    starts = np.cumsum([0, *lengths[:-1]])
    chain = data.ConcatDataset([numbered(start, length) for start, length in zip(starts, lengths, strict=True)])
    total = sum(lengths)
    assert len(chain) == total
    asked = draw.draw(st.lists(st.integers(-total, total - 1), max_size=8)) if total else []
    x, y = chain[np.array(asked, int)]
    assert x.tolist() == (np.arange(total)[asked] if asked else np.zeros(0)).tolist() and (y == -x).all()
    assert [chain[i][0] for i in asked] == x.tolist()
    with pytest.raises(IndexError, match=f"index {total} in"):
        chain[total]
    with pytest.raises(ValueError, match="at least one"):
        data.ConcatDataset([])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 9))
def test_a_random_split_gives_every_sample_to_one_part(lengths, seed):
    parts = data.random_split(numbered(0, sum(lengths)), lengths, seed)
    assert [len(part) for part in parts] == lengths
    assert sorted(i for part in parts for i in part.indices) == list(range(sum(lengths)))
    again = data.random_split(numbered(0, sum(lengths)), lengths, seed)
    assert [p.indices.tolist() for p in parts] == [p.indices.tolist() for p in again]


def test_a_random_split_is_another_for_another_seed_and_takes_fractions_as_pytorch_does():
    dataset = numbered(0, 11)
    splits = [data.random_split(dataset, [5, 6], seed)[0].indices.tolist() for seed in (0, 1)]
    assert splits[0] != splits[1]
    assert [len(p) for p in data.random_split(dataset, [0.5, 0.25, 0.25])] == [6, 3, 2]
    for wrong in ([5, 5], [0.5, 0.4], [12, -1], []):
        with pytest.raises(ValueError, match="sum neither to the 11 samples nor to 1"):
            data.random_split(dataset, wrong)


def add_noise(x, generator):
    return x + generator.random()


class Double:
    random = False

    def __call__(self, x, generator):
        assert generator is None
        return 2 * x


def test_a_random_transform_depends_on_seed_epoch_and_sample_alone():
    dataset = data.TransformedDataset(numbered(0, 5), add_noise)
    together, _ = dataset[np.array([3, 1, 3])]
    assert together.tolist() == [dataset[3][0], dataset[1][0], dataset[-2][0]]
    assert 3 <= together[0] < 4 and together[0] % 1 != together[1] % 1
    dataset.set_epoch(1)
    assert dataset[3][0] != together[0] and dataset[3][1] == -3
    dataset.set_epoch(0)
    assert dataset[3][0] == together[0]
    assert data.TransformedDataset(numbered(0, 5), add_noise, seed=1)[3][0] != together[0]


def test_a_transform_that_draws_nothing_gets_all_rows_at_once():
    dataset = data.TransformedDataset(numbered(0, 5), Double())
    assert dataset[np.array([4, 2])][0].tolist() == [8, 4] and dataset[1] == (2, -1)
    with pytest.raises(TypeError, match="a function of .x, generator., not a int"):
        data.TransformedDataset(numbered(0, 5), 3)


def test_parts_and_chains_pass_the_epoch_on():
    inner = [data.TransformedDataset(numbered(0, 5), add_noise) for _ in range(2)]
    outer = data.TransformedDataset(data.ConcatDataset([data.Subset(inner[0], [0]), inner[1]]), Double())
    outer.set_epoch(3)
    assert [d.epoch for d in inner] == [3, 3]
