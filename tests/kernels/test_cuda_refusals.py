"""What kernels refuse is raised by whoever waits for the GPU next, once, and until then does no harm."""

from unittest import mock

import numpy as np
import pytest

import minidl
from minidl.kernels import for_device
from minidl.kernels.cuda import device, emulator, refusals

cuda = for_device("cuda")

NUMBERS, OUTSIDE, LABELS = np.arange(12.0).reshape(4, 3), np.array([3, 4, -5]), np.array([0, 3, -100, 2])

REFUSED = {
    "cross_entropy": (
        lambda: cuda.cross_entropy(there(NUMBERS), there(LABELS), -100)[0],
        ValueError, r"cross_entropy: a target is 3, the classes lie in \[0, 3\)$",
    ),
    "pick": (
        lambda: cuda.pick(there(NUMBERS), there(LABELS), -100),
        ValueError, r"cross_entropy: a target is 3, the classes lie in \[0, 3\)$",
    ),
    "pick_grad": (
        lambda: cuda.pick_grad(there(NUMBERS[:, 0]), there(LABELS), 3, -100),
        ValueError, r"cross_entropy: a target is 3, the classes lie in \[0, 3\)$",
    ),
    "binary_cross_entropy": (
        lambda: cuda.binary_cross_entropy(there(NUMBERS), there(NUMBERS)),
        ValueError, r"binary_cross_entropy: a probability or a target is outside \[0, 1\]$",
    ),
    "embedding": (
        lambda: cuda.embedding(there(NUMBERS), there(OUTSIDE)),
        ValueError, r"embedding: an index is 4, the table has rows \[0, 4\)$",
    ),
    "index": (
        lambda: cuda.index(there(NUMBERS), (there(OUTSIDE),)),
        IndexError, "index 4 is out of bounds for axis 0 with size 4$",
    ),
    "index_put": (
        lambda: cuda.index_put(there(NUMBERS), (there(OUTSIDE),), there(NUMBERS[:3])),
        IndexError, "index 4 is out of bounds for axis 0 with size 4$",
    ),
    "index_add": (
        lambda: cuda.index_add(there(NUMBERS), (there(OUTSIDE),), there(NUMBERS[:3])),
        IndexError, "index 4 is out of bounds for axis 0 with size 4$",
    ),
    "floor_divide": (
        lambda: cuda.floor_divide(there(OUTSIDE), there(np.array([1, 0, 2]))),
        ZeroDivisionError, "an integer is divided by 0$",
    ),
    "remainder": (
        lambda: cuda.remainder(there(OUTSIDE), there(np.array([1, 0, 2]))),
        ZeroDivisionError, "an integer is divided by 0$",
    ),
}  # fmt: skip


def there(x):
    return cuda.array(x, x.dtype)


def waits_of(call) -> int:
    """How often the host waited for values while `call` ran."""
    with mock.patch.object(device, "to_host", wraps=device.to_host) as copied:
        call()
    return copied.call_count


@pytest.fixture
def late(monkeypatch):
    """As on a GPU without MINIDL_CUDA_SYNC."""
    monkeypatch.setattr(refusals, "AT_ONCE", False)
    yield
    refusals.look()


@pytest.mark.parametrize("order", ["forward", "reversed"])
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_raised_where_the_host_waits_for_values_and_only_there(monkeypatch, late, name, order):
    monkeypatch.setattr(emulator, "order", order)
    call, error, sentence = REFUSED[name]
    assert not waits_of(call)
    out = call()
    with pytest.raises(error, match=sentence):
        cuda.to_numpy(out)
    assert cuda.to_numpy(out).shape == out.shape  # it is raised once


@pytest.mark.parametrize("name", REFUSED)
def test_the_call_itself_raises_it_where_nothing_is_asynchronous(name):
    call, error, _ = REFUSED[name]
    for _ in range(2):
        with pytest.raises(error):
            call()
    assert cuda.to_numpy(there(NUMBERS)).sum() == 66


@pytest.mark.parametrize("wait", [minidl.cuda.synchronize, lambda: cuda.Download(there(NUMBERS)).numpy()])
def test_whoever_waits_raises_it(late, wait):
    cuda.embedding(there(NUMBERS), there(OUTSIDE))
    with pytest.raises(ValueError, match="embedding: an index is 4"):
        wait()
    wait()


def test_what_is_noted_after_a_download_waits_for_the_next_look(monkeypatch, late):
    download, indices, launches = cuda.Download(there(NUMBERS)), there(OUTSIDE), []
    with monkeypatch.context() as busy:
        busy.setattr(device, "launch", lambda *given: launches.append(given))
        busy.setattr(device.Event, "done", lambda event: False)
        cuda.check_indices("gather", indices, 4)
        download.numpy()
    for given in launches:
        device.launch(*given)
    with pytest.raises(IndexError, match="gather: an index is 4"):
        minidl.cuda.synchronize()


@pytest.mark.parametrize("value", [-1, 2**40, -(2**40)])
def test_a_value_of_more_than_32_bits_is_the_nearest_of_32(late, value):
    cuda.check_indices("gather", there(np.array([0, value])), 4)
    said = max(min(value, 2**31 - 1), -(2**31))
    with pytest.raises(IndexError, match=rf"gather: an index is {said}, the places lie in \[0, 4\)"):
        minidl.cuda.synchronize()


def test_the_host_looks_only_if_a_kernel_checked_something(late):
    x = there(NUMBERS)
    assert waits_of(lambda: cuda.to_numpy(cuda.add(x, x))) == 1
    assert waits_of(lambda: cuda.to_numpy(cuda.embedding(x, there(np.array([1]))))) == 2
    assert waits_of(lambda: cuda.to_numpy(x)) == 1


def test_nothing_can_stand_for_an_index_into_nothing(late):
    with pytest.raises(IndexError, match="index 3 is out of bounds for axis 0 with size 0"):
        cuda.index(there(NUMBERS[:0]), (there(np.array([3])),))
