"""Data sets and the loader."""

import numpy as np
import pytest

from minidl import data


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


def test_a_loader_gives_every_sample_once_an_epoch_in_another_order():
    dataset = data.ArrayDataset(np.arange(10.0, dtype=np.float32), np.arange(10))
    loader = data.DataLoader(dataset, 4, shuffle=True)
    epochs = [[y.numpy().tolist() for _, y in loader] for _ in range(2)]
    assert [len(b) for b in epochs[0]] == [4, 4, 2] and len(loader) == 3
    orders = [sum(batches, []) for batches in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]
    assert orders[0] == data.epoch_order(10, 0, 0).tolist()
    assert len(list(data.DataLoader(dataset, 4, drop_last=True))) == 2


def test_a_loader_takes_its_order_from_a_sampler():
    dataset = data.ArrayDataset(np.arange(10), np.arange(10))
    loaders = [data.DataLoader(dataset, 2, sampler=data.DistributedSampler(10, 2, rank)) for rank in range(2)]
    seen = [i for loader in loaders for _, y in loader for i in y.numpy()]
    assert sorted(seen) == list(range(10)) and len(loaders[0]) == 3
    with pytest.raises(ValueError, match="sampler"):
        data.DataLoader(dataset, 2, shuffle=True, sampler=data.DistributedSampler(10, 2, 0))


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="x has 3 samples, y has 2"):
        data.ArrayDataset(np.zeros(3), np.zeros(2))


FIRST = [1, 8, 7, 9, 8, 2, 9, 5]
