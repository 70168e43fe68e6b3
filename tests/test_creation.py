"""Tensors from constants, sequences and chance, and tensors as Python's values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl


def test_a_fill_value_gives_the_dtype_and_a_given_dtype_wins():
    assert minidl.full((2,), 3).dtype == minidl.int64
    assert minidl.full(2, 3.0).dtype == minidl.float32
    assert minidl.full((), True).dtype == minidl.bool
    assert minidl.full((2,), 3, dtype=minidl.float64).dtype == minidl.float64
    x = minidl.full_like(minidl.zeros(2, 3, dtype="float64"), 7)
    assert (x.dtype, x.tolist()) == (minidl.float64, [[7] * 3] * 2)


def test_sequences_and_matrices_are_those_of_numpy():
    np.testing.assert_array_equal(minidl.eye(2, 3).numpy(), np.eye(2, 3))
    np.testing.assert_allclose(minidl.linspace(-1, 2, 7).numpy(), np.linspace(-1, 2, 7))
    np.testing.assert_array_equal(minidl.tril_indices(3, 4, 1).numpy(), np.tril_indices(3, 1, 4))
    np.testing.assert_array_equal(minidl.triu_indices(3, 4, -1).numpy(), np.triu_indices(3, -1, 4))
    assert minidl.empty(2, 0, dtype="int64").shape == (2, 0)


NUMBERS = st.one_of(st.integers(-20, 20), st.floats(-20, 20), st.sampled_from([0.1, -0.5, 1 / 3, 2.5, 1e-3]))


@given(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["int64", "float32", "float64", None]))
def test_arange_has_the_length_the_dtype_and_the_values_of_pytorch(start, end, step, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    if step and abs(end - start) > 1000 * abs(step):
        step = end - start
    try:
        expected = torch.arange(start, end, step, dtype=dtype and getattr(torch, dtype)).numpy()
    except (RuntimeError, ValueError):
        with pytest.raises(ValueError, match="does not lead from one to the other"):
            minidl.arange(start, end, step, dtype=dtype)
        return
    found = minidl.arange(start, end, step, dtype=dtype).numpy()
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if found.dtype == np.float32 else 1e-13, atol=1e-5)


@given(NUMBERS, NUMBERS, st.integers(0, 40), st.sampled_from(["int64", "float32", "float64"]))
def test_linspace_has_the_values_of_pytorch(start, end, steps, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    expected = torch.linspace(start, end, steps, dtype=getattr(torch, dtype)).numpy()
    found = minidl.linspace(start, end, steps, dtype=dtype).numpy()
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if dtype != "int64":
        np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == "float32" else 1e-13, atol=1e-5)
        return
    # PyTorch may cut a whole number that the processor has rounded down
    distance = (int(end) - int(start)) * np.arange(steps)
    whole = distance % max(1, steps - 1) == 0
    np.testing.assert_array_equal(found[~whole], expected[~whole])
    np.testing.assert_array_equal(found[whole], int(start) + distance[whole] // max(1, steps - 1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: minidl.arange(0, 3, 0), ValueError, "arange from 0 to 3: the step 0 does not lead"),
        (lambda: minidl.arange(0, 1, 0.5, dtype="int64"), ValueError, "the step 0.5 does not lead"),
        (lambda: minidl.arange(3, 0), ValueError, "the step 1 does not lead from one to the other"),
        (lambda: minidl.arange(float("inf")), ValueError, "they must be finite"),
        (lambda: minidl.arange("3"), TypeError, "arange needs numbers, not '3'"),
        (lambda: minidl.linspace(0, float("nan"), 3, "int64"), ValueError, "they must be finite"),
        (lambda: minidl.linspace(0, 1, -1), ValueError, "steps=-1, it must be at least 0"),
        (lambda: minidl.linspace(0, 1, 2.0), TypeError, "steps=2.0, it must be an int"),
        (lambda: minidl.linspace(0, 1, True), TypeError, "steps=True, it must be an int"),
        (lambda: minidl.zeros(2, True), TypeError, "must be ints: True and False are none"),
        (lambda: minidl.full((True,), 1), TypeError, "must be ints: True and False are none"),
        (lambda: minidl.randperm(True), TypeError, "n=True, it must be an int"),
        (lambda: minidl.tril_indices(2, True), TypeError, "col=True, it must be an int"),
    ],
)
def test_what_makes_no_sequence_and_no_shape_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_random_tensors_lie_in_their_range_and_follow_the_seed():
    def draw():
        minidl.manual_seed(3)
        return minidl.randint(5, (100,)), minidl.randint(-2, 2, (100,)), minidl.randperm(7), minidl.rand(50)

    up_to_5, around_0, order, uniform = first = draw()
    assert set(up_to_5.tolist()) == set(range(5)) and up_to_5.dtype == minidl.int64
    assert set(around_0.tolist()) == {-2, -1, 0, 1}
    assert sorted(order.tolist()) == list(range(7))
    assert 0 <= uniform.min().item() <= uniform.max().item() < 1
    assert all(minidl.equal(a, b) for a, b in zip(first, draw(), strict=True))
    x = minidl.zeros(2, 3, dtype="float64")
    assert all((y.shape, y.dtype) == (x.shape, x.dtype) for y in (minidl.rand_like(x), minidl.randn_like(x)))


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: minidl.zeros(2, **k),
        lambda **k: minidl.ones(2, **k),
        lambda **k: minidl.full((2,), 1.5, **k),
        lambda **k: minidl.eye(2, **k),
        lambda **k: minidl.empty(2, **k),
        lambda **k: minidl.randn(2, **k),
        lambda **k: minidl.rand(2, **k),
        lambda **k: minidl.arange(2.0, **k),
        lambda **k: minidl.linspace(0, 1, 2, **k),
    ],
)
def test_a_new_tensor_requires_a_gradient_if_asked_and_lies_on_the_device(make):
    assert make(requires_grad=True).requires_grad and not make().requires_grad
    assert make(device="meta").device == "meta"


def test_an_array_and_the_tensor_made_from_it_share_memory():
    values = np.zeros(3)
    minidl.from_numpy(values)[1] = 5
    assert values.tolist() == [0, 5, 0]
    with pytest.raises(ValueError, match="float16 is not supported"):
        minidl.from_numpy(np.zeros(3, np.float16))


def test_a_tensor_becomes_the_dtype_asked_for():
    x = minidl.tensor([0.0, 1.5, -2.0])
    assert x.double().dtype == minidl.float64 and x.double().float().dtype == minidl.float32
    assert x.long().tolist() == [0, 1, -2] and x.bool().tolist() == [False, True, True]
    assert x.type_as(minidl.tensor([1])).dtype == minidl.int64
    assert x.float() is x


def test_a_tensor_becomes_a_number_a_list_an_index_or_text():
    x = minidl.tensor([[1, 2, 3], [4, 5, 6]])
    assert (x.size(), x.size(-1), x.dim()) == ((2, 3), 3, 2)
    assert [row.tolist() for row in x] == x.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert int(minidl.tensor(2.7)) == 2 and float(x[0, 1]) == 2
    assert "abcd"[minidl.tensor(2)] == "c" and list(range(x[0, 1])) == [0, 1]
    assert f"{minidl.tensor(1.25):.1f}" == "1.2" and f"{x[0]}" == str(x[0])
    np.testing.assert_array_equal(x.mT.numpy(), x.numpy().T)


def test_a_copy_shares_no_memory_and_what_is_contiguous_already_is_itself():
    x = minidl.zeros(2, 3)
    assert not np.shares_memory(x.clone().numpy(), x.numpy())
    assert x.contiguous() is x and x.T.contiguous().data.flags.c_contiguous
    on_meta = minidl.zeros(2, 3, device="meta")
    assert on_meta.contiguous() is on_meta and on_meta.T.contiguous().data.contiguous


def test_assigned_places_are_those_that_the_same_key_reads():
    x = minidl.zeros(2, 3, 4)
    x[0, :, [1, 2]] = minidl.tensor([5.0, 6.0])
    assert x[0, :, [1, 2]].tolist() == [[5, 6]] * 3 and x.sum().item() == 33


def test_comparisons_of_whole_tensors_give_one_answer():
    x = minidl.tensor([1.0, float("nan")])
    assert minidl.equal(x[:1], minidl.tensor([1])) and not minidl.equal(x, x) and not minidl.equal(x, x[:1])
    assert minidl.allclose(x, x + 1e-9, equal_nan=True) and not minidl.allclose(x, x)
