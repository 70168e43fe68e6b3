"""DataLoader: the same batches for any number of workers, whatever the samples look like."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl import data
from minidl.data import transforms
from minidl.nested import leaves
from tests.leftovers import alive

pytestmark = pytest.mark.usefixtures("warm_workers", "nothing_is_left")


def as_bytes(loader, epochs=1):
    """All batches of some epochs, exactly: the form of each, and every array's dtype, shape and bytes."""
    found = []
    for _ in range(epochs):
        for batch in loader:
            arrays = [x.numpy() if isinstance(x, minidl.Tensor) else x for x in leaves(batch)]
            found.append([(a.dtype, a.shape, a.tobytes()) if isinstance(a, np.ndarray) else a for a in arrays])
    return found


def same_for_all(dataset, workers=(2,), epochs=1, **options):
    """The batches without workers; the same come from any number of them."""
    expected = as_bytes(data.DataLoader(dataset, **options), epochs)
    for count in workers:
        assert as_bytes(data.DataLoader(dataset, num_workers=count, **options), epochs) == expected
    return expected


def test_a_loader_gives_every_sample_once_an_epoch_in_another_order():
    dataset = data.ArrayDataset(np.arange(10.0, dtype=np.float32), np.arange(10))
    loader = data.DataLoader(dataset, 4, shuffle=True)
    epochs = [[y.numpy().tolist() for _, y in loader] for _ in range(2)]
    assert [len(b) for b in epochs[0]] == [4, 4, 2] and len(loader) == 3
    orders = [sum(batches, []) for batches in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]
    assert orders[0] == data.epoch_order(10, 0, 0).tolist()
    assert len(list(data.DataLoader(dataset, 4, drop_last=True))) == 2


def turn_and_add_noise(x, generator):
    return np.rot90(x, generator.integers(4), (-2, -1)) + generator.standard_normal(x.shape, np.float32)


def test_random_transforms_are_the_same_bits_for_any_number_of_workers():
    train, _ = data.digits()
    dataset = data.TransformedDataset(data.Subset(train, np.arange(150)), turn_and_add_noise)
    batches = same_for_all(dataset, (1, 5), epochs=2, batch_size=32, shuffle=True, seed=3)
    assert len(batches) == 10 and batches[0] != batches[5]


@settings(max_examples=4)
@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans())
def test_workers_cut_any_epoch_as_the_loader_alone_does(samples, batch_size, ahead, shuffle, drop_last):
    dataset = data.ArrayDataset(np.arange(samples * 3.0).reshape(samples, 3), np.arange(samples))
    options = dict(batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, prefetch_factor=ahead)
    same_for_all(dataset, **options)


class OneByOne:
    """Knows single indices only: what it gives for an array of them is wrong, or an error."""

    def __len__(self):
        return 7

    def __getitem__(self, i):
        return self.sample(i)


class ListOfNumbers(OneByOne):
    def sample(self, i):
        return np.array([i, i + 1, 2 * i], np.float32), i


class Mixed(OneByOne):
    def sample(self, i):
        image = minidl.full((2, 2), float(i))
        return {"image": image, "size": (float(i), [i, i > 3]), "name": f"image {i}", "none": np.zeros((0, 2))}


class Raw(OneByOne):
    def sample(self, i):
        return 0.5 * i


def test_a_data_set_that_knows_single_indices_only_is_asked_for_those():
    (x, y), *_ = data.DataLoader(ListOfNumbers(), 3)
    assert x.numpy().tolist() == [[0, 1, 0], [1, 2, 2], [2, 3, 4]] and y.numpy().tolist() == [0, 1, 2]


def test_a_data_set_that_takes_arrays_is_asked_for_whole_batches():
    asked = []

    class Recording(data.ArrayDataset):
        def __getitem__(self, index):
            asked.append(np.shape(index))
            return super().__getitem__(index)

    list(data.DataLoader(Recording(np.zeros(100), np.zeros(100)), 50))
    assert asked[-2:] == [(50,), (50,)] and len(asked) == 5  # before these a trial of three


def test_samples_may_be_numbers_tensors_tuples_and_dicts():
    first, *_ = data.DataLoader(Mixed(), 4)
    assert first["image"].shape == (4, 2, 2) and first["image"].dtype == minidl.float32
    numbers, (integers, flags) = first["size"]
    assert (numbers.dtype, integers.dtype, flags.dtype) == (minidl.float32, minidl.int64, minidl.bool_)
    assert first["name"] == ["image 0", "image 1", "image 2", "image 3"] and first["none"].shape == (4, 0, 2)
    same_for_all(Mixed(), batch_size=4)
    half, *_ = data.DataLoader(Raw(), 2)
    assert half.numpy().tolist() == [0, 0.5]


class Ragged(OneByOne):
    def sample(self, i):
        return np.arange(i + 1.0), i


def padded(samples):
    x = np.zeros((len(samples), max(len(x) for x, _ in samples)))
    for row, (values, _) in zip(x, samples, strict=True):
        row[: len(values)] = values
    return x, np.array([y for _, y in samples])


def test_ragged_samples_need_a_collate_fn():
    with pytest.raises(ValueError, match=r"have shapes \(1,\), \(2,\), \(3,\): give the DataLoader a collate_fn"):
        list(data.DataLoader(Ragged(), 3))
    (x, _), *_, (last, _) = data.DataLoader(Ragged(), 3, collate_fn=padded)
    assert x.numpy().tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 2]] and last.shape == (1, 7)
    same_for_all(Ragged(), batch_size=3, collate_fn=padded)
    with pytest.raises(ValueError, match="have lengths 1, 2"):
        data.default_collate([(1,), (1, 2)])
    with pytest.raises(TypeError, match="samples of type object make no batch"):
        data.default_collate([object()])


@pytest.mark.parametrize(
    ("samples", "dtype"),
    [
        ([1, 2.5, 3], "float32"),
        ([True, 2, 3], "int64"),
        ([True, 0.5], "float32"),
        ([True, False], "bool"),
        ([2**63 - 1, -(2**63)], "int64"),
        ([2**63, 0.5], "float32"),
        ([np.float64(1), 2, 3.5], "float64"),
        ([np.float32(1), 2.5], "float32"),
        ([np.int64(1), 2.5], "float32"),
        ([np.uint8(1), 300], "int64"),
        ([np.arange(2), np.arange(2, dtype=np.float32)], "float32"),
        ([minidl.arange(2), np.arange(2.0)], "float64"),
    ],
    ids=str,
)
def test_the_dtype_of_a_batch_is_that_of_all_samples_whatever_their_order(samples, dtype):
    for order in (samples, samples[::-1]):
        batch = data.default_collate([{"number": sample, "pair": (sample, [sample])} for sample in order])
        assert batch["number"].dtype == batch["pair"][0].dtype == batch["pair"][1][0].dtype == dtype
        np.testing.assert_array_equal(batch["number"], np.array([np.asarray(x, dtype) for x in order]))
        if all(type(sample) in (bool, int, float) for sample in samples):
            assert minidl.tensor(order).dtype == minidl.tensor([order, order]).dtype == dtype


def test_a_loader_gives_the_dtype_of_all_samples_with_workers_and_without():
    class Table(data.Dataset):  # as a CSV file gives them: whole numbers among others
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return (1, [1, 2.5, 3, 0.5][int(index)])

    ((_, y),) = data.DataLoader(Table(), 4)
    assert y.dtype == minidl.float32 and y.numpy().tolist() == [1, 2.5, 3, 0.5]
    same_for_all(Table(), batch_size=4)


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([1, 2**63], ValueError, "whole number 9223372036854775808 is beyond int64"),
        ([-1, 2**64], ValueError, "beyond int64"),
        ([-(2**63) - 1], ValueError, "whole number -9223372036854775809 is beyond int64"),
        ([(1, 2**63), (2, 1)], ValueError, "beyond int64"),
        ([np.int64(1), np.uint64(2)], ValueError, "no dtype holds the whole numbers of"),
        ([np.int64(1), 2**63], ValueError, "beyond int64"),
        ([1, None], TypeError, "types int and NoneType"),
        ([1, "2"], TypeError, "types int and str"),
        ([np.ones(()), 1.0], TypeError, "types ndarray and float"),
        ([{"a": 1}, {"a": 1, "b": 2}], ValueError, "have keys"),
    ],
    ids=str,
)
def test_samples_that_make_no_batch_are_refused_whatever_their_order(samples, error, message):
    with pytest.raises(error, match=message):
        data.default_collate(samples)
    with pytest.raises(error):
        data.default_collate(samples[::-1])


def test_a_tensor_of_whole_numbers_beyond_int64_is_refused_unless_it_is_to_be_of_floats():
    for numbers in (2**63, [2**63, -1], [[1, 2], [3, -(2**70)]]):
        for dtype in (None, "int64"):
            with pytest.raises(ValueError, match="is beyond int64"):
                minidl.tensor(numbers, dtype)
        assert minidl.tensor(numbers, "float64").numpy().tolist() == np.array(numbers, float).tolist()


def test_a_batch_of_any_size_fits():
    big = data.ArrayDataset(np.arange(1 << 22, dtype=np.float32).reshape(4, 1 << 20), np.arange(4))
    same_for_all(big, batch_size=3)


def test_the_default_generator_is_keyed_by_the_batch():
    class Random(OneByOne):
        def sample(self, i):
            return minidl.rand(3)

    before = minidl.random.default_generator()
    batches = same_for_all(Random(), batch_size=2)
    assert len({str(b) for b in batches}) == 4 and minidl.random.default_generator() is before


def test_workers_mix_batches_as_the_loader_alone_does():
    mixup = transforms.Mixup(10, alpha=1.0)
    dataset = data.Subset(data.digits()[0], np.arange(20))
    batches = same_for_all(dataset, batch_size=8, collate_fn=lambda samples: mixup(*data.default_collate(samples)))
    assert [shape for _, (_, shape, _) in batches] == [(8, 10), (8, 10), (4, 10)]


def test_an_epoch_can_be_taken_up_again():
    dataset = data.TransformedDataset(data.Subset(data.digits()[0], np.arange(20)), turn_and_add_noise)
    loader = data.DataLoader(dataset, 8, shuffle=True)
    first, second = as_bytes(loader), as_bytes(loader)
    again = data.DataLoader(dataset, 8, shuffle=True)
    again.epoch = 1
    assert as_bytes(again) == second != first


def test_batches_that_are_kept_stay_as_they_are():
    dataset = data.ArrayDataset(np.repeat(np.arange(60.0), 1000).reshape(60, 1000), np.arange(60))
    kept = [(x, y) for i, (x, y) in enumerate(data.DataLoader(dataset, 2, num_workers=2)) if i % 3 == 0]
    for x, y in kept:
        assert (x.numpy() == y.numpy()[:, None]).all()
    x, y = kept[0]
    x.numpy()[:] = 7  # the batch is the reader's own
    assert (kept[1][0].numpy() == kept[1][1].numpy()[:, None]).all() and y.numpy().tolist() == [0, 1]


def test_the_memory_of_dropped_batches_is_used_again():
    dataset = data.ArrayDataset(np.zeros((200, 1000)), np.zeros(200))
    iterator = iter(data.DataLoader(dataset, 2, num_workers=1))
    places = {x.numpy().__array_interface__["data"][0] for x, _ in iterator}
    assert len(places) <= 6


def test_one_array_given_twice_becomes_two_tensors():
    x = np.zeros((4, 3))
    for workers in (0, 1):
        (a, b), *_ = data.DataLoader(data.ArrayDataset(x, x), 2, num_workers=workers)
        a.numpy()[:] = 1
        assert not b.numpy().any() and not x.any()


def test_two_iterators_at_once_do_not_disturb_each_other():
    dataset = data.TransformedDataset(data.Subset(data.digits()[0], np.arange(20)), turn_and_add_noise)
    expected = as_bytes(data.DataLoader(dataset, 5, shuffle=True), epochs=2)
    for workers in (0, 2):
        loader = data.DataLoader(dataset, 5, shuffle=True, num_workers=workers)
        pairs = list(zip(iter(loader), iter(loader), strict=True))
        both = [batch for epoch in zip(*pairs, strict=True) for batch in epoch]
        found = [[(x.numpy().dtype, x.shape, x.numpy().tobytes()) for x in batch] for batch in both]
        assert found == expected


def test_workers_see_the_data_set_as_it_is_when_the_iteration_starts(cold_workers, nothing_is_left):
    dataset = data.ArrayDataset(np.zeros(4), np.zeros(4))
    loader = data.DataLoader(dataset, 2, num_workers=1)
    assert [x.numpy().tolist() for x, _ in loader] == [[0, 0], [0, 0]]
    dataset.x[:] = 5
    assert [x.numpy().tolist() for x, _ in loader] == [[5, 5], [5, 5]]
    assert not alive(nothing_is_left)


class Caching(OneByOne):
    """Writes to its own arrays."""

    def __init__(self):
        self.seen = np.zeros(7)

    def sample(self, i):
        self.seen[i] += 1
        return self.seen[i], os.getpid()


def test_a_worker_may_write_to_its_own_copy_of_the_data_set():
    dataset = Caching()
    pids = set()
    for x, pid in data.DataLoader(dataset, 1, num_workers=2):
        assert x.numpy().tolist() == [1]
        pids.add(pid.item())
    assert len(pids) == 2 and os.getpid() not in pids and not dataset.seen.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 is not a whole number of at least 1"),
        ({"batch_size": 2.0}, "batch_size=2.0 is not"),
        ({"num_workers": -1}, "num_workers=-1 is not a whole number of at least 0"),
        ({"prefetch_factor": 0}, "prefetch_factor=0 is not"),
    ],
)
def test_a_loader_refuses_what_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        data.DataLoader(data.digits()[0], **options)
    with pytest.raises(TypeError, match="collate_fn must be a function of a list, not a int"):
        data.DataLoader(data.digits()[0], collate_fn=3)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dtype_that_tensors_do_not_have_is_named(workers):
    images = data.ArrayDataset(np.zeros((4, 2), np.uint8), np.zeros(4, int))
    with pytest.raises((ValueError, RuntimeError), match="dtype uint8 is not supported: use float32"):
        list(data.DataLoader(images, 2, num_workers=workers))
