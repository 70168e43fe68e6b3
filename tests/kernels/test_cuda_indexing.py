"""Elements that keys name are read, written and added to on the GPU as NumPy has them."""

import numpy as np
import pytest

from minidl.kernels import cpu, for_device

pytestmark = pytest.mark.usefixtures("thread_order")
cuda = for_device("cuda")
SHAPE = (4, 3, 5)
X = np.arange(60, dtype=np.float32).reshape(SHAPE)
MASK = np.array([[True, False, True], [False, False, True], [True, True, False], [False, False, False]])
KEYS = [
    (), (1,), (-1, slice(None), 2), (slice(1, 3), ..., 0), (None, slice(3, None, -2)), (1, 2, 3), (..., None, slice(0)),
    (np.array([2, 0, 2]),), (np.array([[0, -1], [1, 1]]), slice(1, 3)), (slice(None), np.array([0, 2, 0])),
    (slice(None), slice(None), np.array([4, 1])), (np.array([1, 2]), slice(None), np.array([0, 4])),
    (slice(2), np.array([[0], [2]]), np.array([1, 3, 1])), (np.array([1, 2]), ..., np.array([[0], [4]])),
    (slice(None), np.array([0, 1]), ..., np.array([0, 1])), (0, slice(None), np.array([1, 2])),
    (np.array([0, 1]), None, np.array([0, 1])), (slice(1, None), None, np.array([0, 1]), slice(0, 5, 2)),
    (MASK,), (MASK, slice(1, 3)), (slice(None), np.array([True, False, True])), (MASK, np.array([0, 1, 2, 3, 4])),
    (True,), (slice(None), False), (np.zeros(0, np.int64),), (np.zeros((4, 3), bool),), (X > 30,),
    (np.array([1, 2, 3]), np.array([2, 0, 1]), np.array([4, 4, 4])), (slice(0), np.array([1, 1])),
]  # fmt: skip


def there(x):
    return cuda.array(x, x.dtype)


def sent(key):
    """The key with its arrays on the GPU."""
    return tuple(there(k) if isinstance(k, np.ndarray) else k for k in key)


def check(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(cuda.to_numpy(found), expected, rtol=1e-6)


def values(shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_keys_name_what_they_name_in_numpy(key):
    expected = cpu.index(X, key)
    new = values(expected.shape)
    for k in (key, sent(key)):
        check(cuda.index(there(X), k), expected)
        check(cuda.index_put(there(X), k, there(new)), cpu.index_put(X, key, new))
        check(cuda.index_grad(there(new), k, SHAPE), cpu.index_grad(new, key, SHAPE))
        check(cuda.index_add(there(X), k, there(new)), cpu.index_add(X, key, new))
        target, changed = there(X), X.copy()
        cuda.index_assign(target, k, there(np.float32(7)))
        cpu.index_assign(changed, key, np.float32(7))
        check(target, changed)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_they_do_so_in_views(key):
    x = np.ascontiguousarray(X.transpose(2, 0, 1)).transpose(1, 2, 0)
    turned = cuda.permute(there(np.ascontiguousarray(X.transpose(2, 0, 1))), (1, 2, 0))
    check(cuda.index(turned, sent(key)), cpu.index(x, key))
    check(cuda.index(cuda.index(there(X[:, ::-1].copy()), (slice(None), slice(None, None, -1))), sent(key)),
          cpu.index(X, key))  # fmt: skip
    new = values(cpu.index(x, key).shape)
    cuda.index_assign(turned, sent(key), there(new))
    x = X.copy()
    cpu.index_assign(x, key, new)
    check(turned, x)


def test_slices_are_views():
    x = there(X)
    part = cuda.index(x, (slice(1, 3), ..., 2))
    cuda.fill(part, 0)
    changed = X.copy()
    changed[1:3, ..., 2] = 0
    check(x, changed)


def test_a_part_may_be_written_over_another_of_the_same_array():
    x, changed = there(X), X.copy()
    cuda.index_assign(x, (slice(1, None),), cuda.index(x, (slice(3),)))
    changed[1:] = changed[:3].copy()
    check(x, changed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_a_place_named_several_times_gets_every_part(dtype):
    x, index, new = values(6, dtype), np.random.default_rng(0).integers(-6, 6, 200), np.ones(200, dtype)
    check(cuda.index_add(there(x), (there(index),), there(new)), cpu.index_add(x, (index,), new))
    check(cuda.index_grad(there(new), (there(index),), (6,)), cpu.index_grad(new, (index,), (6,)))


def test_of_several_values_for_one_place_the_last_is_written():
    index, new = np.random.default_rng(0).integers(-4, 4, 150), values((150, 3, 5))
    check(cuda.index_put(there(X), (there(index),), there(new)), cpu.index_put(X, (index,), new))


@pytest.mark.parametrize("key", [
    (4,), (np.array([0, 4]),), (slice(None), np.array([-4])), (0, 0, 0, 0), (0, 0, 0, np.array([0])),
    (np.array([0, 1]), np.array([0, 1, 2])), (np.array([True, False]),), (np.array([0]), 3),
], ids=str)  # fmt: skip
def test_what_numpy_refuses_is_refused_in_its_words(key):
    with pytest.raises(IndexError) as expected:
        cpu.index(X, key)
    for k in (key, sent(key)):
        with pytest.raises(IndexError) as found:
            cuda.index(there(X), k)
        assert str(found.value) == str(expected.value)


def test_values_that_do_not_fit_are_refused():
    for key in ((slice(2),), (np.array([0, 1]),)):
        with pytest.raises(ValueError, match=r"\(3, 3\)"):
            cuda.index_assign(there(X), key, there(values((3, 3))))


def test_indices_are_checked():
    cuda.check_indices("gather", there(np.array([0, 3])), 4)
    cuda.check_indices("gather", there(np.zeros(0, np.int64)), 0)
    with pytest.raises(IndexError, match=r"gather: indices lie in \[-1, 3\], the places in \[0, 4\)"):
        cuda.check_indices("gather", there(np.array([3, -1])), 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_embedding_looks_up_rows_and_adds_them_up(dtype):
    weight = values((7, 5), dtype)
    for indices in (np.random.default_rng(0).integers(7, size=(3, 40)), np.array(2), np.zeros((2, 0), np.int64)):
        found = cpu.embedding(weight, indices)
        check(cuda.embedding(there(weight), there(indices)), found)
        grad = values(found.shape, dtype)
        np.testing.assert_allclose(
            cuda.to_numpy(cuda.embedding_grad(there(grad), there(indices), 7)),
            cpu.embedding_grad(grad, indices, 7), rtol=1e-5, atol=1e-5,
        )  # fmt: skip
    for indices in (np.array([7]), np.array([0, -1])):
        with pytest.raises(ValueError) as expected:
            cpu.embedding(weight, indices)
        with pytest.raises(ValueError) as refused:
            cuda.embedding(there(weight), there(indices))
        assert str(refused.value) == str(expected.value)
