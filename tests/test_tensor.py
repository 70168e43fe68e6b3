"""The tape, and what a tensor refuses."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minidl
from minidl.tape import recorded_ops


def test_the_example_of_the_design_works():
    x = minidl.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    (x @ x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[7, 11], [9, 13]])
    assert x.dtype == minidl.float32


def test_a_chain_of_100_000_ops_goes_backward():
    x = minidl.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 0.0
    y.backward()
    assert x.grad.item() == 1


def test_a_diamond_waits_for_both_sides():
    x = minidl.tensor(3.0, requires_grad=True)
    y = x * x
    z = y * 2.0 + y.exp().log() * y  # y is used three times: dz/dy = 2 + 2 y
    z.backward()
    assert x.grad.item() == pytest.approx((2 + 2 * 9) * 2 * 3, rel=1e-5)


def test_gradients_of_two_backwards_add_up():
    x = minidl.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(2):
        (x * 3.0).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [6, 6])


def test_an_added_gradient_is_not_shared_between_leaves():
    x, y = (minidl.ones(2).requires_grad_() for _ in range(2))
    (x + y).backward(minidl.ones(2))
    (x * 1.0).backward(minidl.ones(2))
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])
    np.testing.assert_array_equal(y.grad.numpy(), [1, 1])


def test_a_second_backward_through_the_same_tape_is_refused():
    x = minidl.tensor(2.0, requires_grad=True)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_a_backward_that_meets_a_freed_op_further_down_is_refused_and_adds_to_no_gradient():
    x, w = (minidl.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    h, fresh = x * 2, w * 5
    (h * 3).sum().backward()
    for loss in (h.sum(), (fresh + h).sum()):
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [6, 6])
    assert w.grad is None


def test_a_loss_that_nothing_depends_on_is_refused():
    with pytest.raises(RuntimeError, match="requires a gradient"):
        minidl.ones(()).backward()
    with pytest.raises(RuntimeError, match=r"shape \(2,\)"):
        minidl.ones(2).requires_grad_().backward()


def test_no_grad_records_no_tape():
    x = minidl.ones(2).requires_grad_()
    with minidl.no_grad():
        y = x * 2
    assert not y.requires_grad and y.op is None
    assert (x * 2).requires_grad


def test_the_tape_keeps_only_what_backward_needs():
    x, w = minidl.ones(4, 3), minidl.ones(2, 3).requires_grad_()
    (op,) = recorded_ops([minidl.ops.linear(x, w).op])
    assert op.x is x.data and op.weight is None  # x wants no gradient, so the weight is not needed
    (op,) = recorded_ops([(w * 2.0).op])
    assert op.a is None


def test_a_number_takes_the_dtype_of_the_tensor():
    assert (minidl.ones(2) * 2).dtype == minidl.float32
    assert (1 - minidl.ones(2, dtype="float64")).dtype == minidl.float64
    assert (minidl.tensor([1, 2]) + 1).dtype == minidl.int64
    assert (minidl.tensor([1, 2]) * 0.5).dtype == minidl.float32
    assert (minidl.tensor([1, 2]) / 2).dtype == minidl.float32


def test_a_result_without_dimensions_is_still_an_array():
    x = minidl.tensor(2.0)
    for y in (x + x, x * 2, x.exp(), -x, x**2, x.sum(), x > 1, x.relu(), x.sigmoid()):
        assert isinstance(y.data, np.ndarray)


def test_errors_name_what_was_given():
    a, b = minidl.ones(2, 3), minidl.ones(2, 4)
    with pytest.raises(ValueError, match=r"add: shapes \(2, 3\) and \(2, 4\) do not broadcast"):
        a + b
    with pytest.raises(ValueError, match=r"matmul: shapes \(2, 3\) and \(2, 4\)"):
        a @ b
    with pytest.raises(ValueError, match="cpu, meta"):
        a + minidl.ones(2, 3, device="meta")
    with pytest.raises(TypeError, match="ndarray"):
        np.ones((2, 3)) + a
    with pytest.raises(IndexError, match=r"dim 2 is out of range for a tensor of shape \(2, 3\)"):
        a.sum(2)
    with pytest.raises(ValueError, match="6 elements"):
        a.reshape(4, -1)
    with pytest.raises(ValueError, match="values"):
        a.to("meta").numpy()
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        minidl.zeros(2, device="tpu")
    with pytest.raises(ValueError, match="float16 is not supported"):
        minidl.zeros(2, dtype="float16")
    with pytest.raises(ValueError, match="one element"):
        a.item()


def test_meta_and_dtypes_are_reached_with_to():
    x = minidl.ones(2, 3).requires_grad_()
    assert x.to("meta").device == "meta"
    y = x.to("float64")
    y.sum().backward()
    assert x.grad.dtype == minidl.float32
    assert x.to("cpu") is x
    assert x.to(dtype=minidl.float64).dtype == minidl.float64 and x.to(device="meta").device == "meta"


def test_views_on_meta_share_storage_and_a_permuted_one_is_copied_to_be_reshaped():
    x = minidl.zeros(2, 3, 4, device="meta")
    assert x.reshape(6, 4).data.storage is x.data.storage
    assert x.permute(1, 0, 2).reshape(6, 4).data.storage is not x.data.storage


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4), st.sampled_from(["cpu", "meta"]))
def test_the_gradients_of_a_broadcast_sum_have_the_inputs_shapes(shapes, device):
    a, b = (minidl.ones(shape, device=device).requires_grad_() for shape in shapes.input_shapes)
    out = a * b
    assert out.shape == shapes.result_shape
    out.backward(minidl.ones(out.shape, device=device))
    assert (a.grad.shape, b.grad.shape) == shapes.input_shapes
    if device == "cpu" and a.numel():
        assert (a.grad.numpy() == out.numel() // a.numel()).all()


@given(st.data(), hnp.array_shapes(max_dims=4, max_side=4))
def test_indexing_agrees_with_numpy_on_cpu_and_meta(data, shape):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True) | hnp.integer_array_indices(shape))
    parts = key if isinstance(key, tuple) else (key,)
    assume(all(k.step is None or k.step > 0 for k in parts if isinstance(k, slice)))
    np.testing.assert_array_equal(minidl.tensor(values)[key].numpy(), values[key])
    assert minidl.tensor(values, device="meta")[key].shape == np.shape(values[key])


def test_factories_follow_the_arguments():
    assert minidl.arange(3).dtype == minidl.int64
    np.testing.assert_allclose(minidl.arange(0, 1, 0.25).numpy(), [0, 0.25, 0.5, 0.75])
    assert minidl.full((2,), 3.0).numpy().tolist() == [3, 3]
    assert minidl.zeros_like(minidl.tensor([1, 2])).numpy().tolist() == [0, 0]
    assert minidl.ones_like(minidl.zeros(2, device="meta")).device == "meta"
    minidl.manual_seed(1)
    first = minidl.randn(2, 3), minidl.rand(4)
    minidl.manual_seed(1)
    for a, b in zip(first, (minidl.randn(2, 3), minidl.rand(4)), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with minidl.device("meta"):
        assert minidl.randn(2).device == "meta"


def test_numpy_takes_a_tensor_for_an_array():
    x = minidl.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert np.shares_memory(np.asarray(x), x.data)
    assert not np.shares_memory(np.array(x), x.data)
    assert np.asarray(x, np.float64).dtype == np.float64
    np.testing.assert_array_equal(minidl.tensor([minidl.ones(2), minidl.zeros(2)]).numpy(), [[1, 1], [0, 0]])
    with pytest.raises(ValueError, match="values"):
        np.asarray(x.to("meta"))


def test_a_number_to_the_power_of_a_tensor():
    x = 2 ** minidl.tensor([0, 1, 3])
    assert x.dtype == minidl.int64 and x.numpy().tolist() == [1, 2, 8]
    assert (2 ** minidl.ones(2)).dtype == minidl.float32
    np.testing.assert_allclose((0.5 ** minidl.tensor([1, 2])).numpy(), [0.5, 0.25])
    assert ((-2) ** minidl.tensor([2.0, 3.0])).numpy().tolist() == [4, -8]


def test_only_floats_can_require_a_gradient():
    for make in (lambda: minidl.tensor([1, 2], requires_grad=True), lambda: minidl.arange(3).requires_grad_()):
        with pytest.raises(RuntimeError, match="floats can require a gradient, not one of dtype int64"):
            make()
    assert not minidl.arange(3).requires_grad_(False).requires_grad


def test_importing_minidl_imports_no_compiler_and_no_plotting():
    code = "import sys, minidl; print([m for m in ('numba', 'matplotlib', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
