"""Dropout on the device cuda draws what it draws on the CPU."""

import numpy as np
import pytest

import minidl
from minidl import philox, random
from minidl.kernels import cpu, for_device

pytestmark = pytest.mark.usefixtures("thread_order")
cuda = for_device("cuda")

from minidl.kernels.cuda import emulator  # noqa: E402


def drawn(k, x, p, scope=None):
    """y and the mask; keyed by `scope`, else from the default generator, begun anew."""
    minidl.manual_seed(3)
    if scope is None:
        return [k.to_numpy(a) for a in k.dropout(x, p)]
    with random.scope(random.Scope(*scope)):
        k.dropout(x, p)  # a second mask of the same block is another
        return [k.to_numpy(a) for a in k.dropout(x, p)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 7), (4, 8), (2, 3, 5), (600,), (0,), (3, 0)])
@pytest.mark.parametrize("keyed", [True, False])
def test_masks_equal_the_cpus_bit_for_bit(shape, dtype, keyed):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    samples = np.array([7, 2**40 + 3, 0, 5, 11, 2**33])
    scope = (5, 9, np.resize(samples, shape[0])) if keyed else None
    for p in (0.1, 0.5):
        y, mask = drawn(cuda, cuda.array(x, dtype), p, scope)
        wanted, wanted_mask = drawn(cpu, x, p, scope)
        assert mask.dtype == bool and (mask == wanted_mask).all()
        assert y.dtype == dtype and (y == wanted).all()


def test_what_lies_in_another_order_is_dropped_by_its_place():
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    y, mask = drawn(cuda, cuda.permute(cuda.array(x, x.dtype), (1, 0)), 0.3)
    wanted, wanted_mask = drawn(cpu, np.ascontiguousarray(x.T), 0.3)
    assert (mask == wanted_mask).all() and (y == wanted).all()


def test_gradients_pass_where_the_mask_lets_them_and_a_nan_stays_one():
    grad = np.array([1, 2, np.nan, np.nan, np.inf], np.float32)
    mask = np.array([True, False, True, False, False])
    found = cuda.to_numpy(cuda.dropout_grad(cuda.array(grad, grad.dtype), cuda.array(mask, bool), 0.25))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found, cpu.dropout_grad(grad, mask, 0.25))


def test_the_op_gives_the_same_on_both_devices():
    found = []
    for device in ("cpu", "cuda"):
        minidl.manual_seed(1)
        x = minidl.ones(9, 4, device=device, requires_grad=True)
        y = minidl.dropout(x, 0.5)
        y.backward(minidl.ones(9, 4, device=device))
        found.append((y.numpy(), x.grad.numpy()))
    assert all((a == b).all() for a, b in zip(*found, strict=True))


def test_the_kernels_philox_gives_the_published_words():
    """Salmon et al.'s known answers, as in Random123's kat_vectors."""
    ones = [np.uint32(2**32 - 1)] * 6
    device = [int(word) for word in emulator.jit(philox.philox, device=True)(*ones)]
    assert device == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
