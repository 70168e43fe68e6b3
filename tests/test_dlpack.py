"""Memory shared with NumPy and PyTorch: what one writes the other reads, and nothing is freed too early or kept."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import minidl
from minidl.kernels import for_device

for_device("cuda")

from minidl.kernels.cuda import dlpack_capsules  # noqa: E402

DTYPES = ["float32", "float64", "int64", "bool"]


def numbered(shape=(3, 4), dtype="float32", device="cpu"):
    return minidl.tensor(np.arange(np.prod(shape)).reshape(shape).astype(dtype), device=device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_and_a_cpu_tensor_share_memory_both_ways(dtype):
    torch = pytest.importorskip("torch")
    ours = numbered(dtype=dtype)
    theirs = torch.from_dlpack(ours)
    theirs[1, 2] = 0
    assert ours.numpy()[1, 2] == 0 and theirs.data_ptr() == ours.data.ctypes.data
    back = minidl.from_dlpack(theirs)
    assert back.device == "cpu" and back.dtype == ours.dtype and back.data.ctypes.data == ours.data.ctypes.data
    back.data[2, 3] = 0
    assert theirs[2, 3] == 0


def test_numpy_and_a_cpu_tensor_share_memory_both_ways():
    ours = numbered()
    theirs = np.from_dlpack(ours)
    assert np.shares_memory(theirs, ours.data)
    assert np.shares_memory(minidl.from_dlpack(theirs).data, theirs)
    assert ours.__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("change", [lambda x: x, lambda x: x.transpose(0, 1), lambda x: x.reshape(-1)])
@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
def test_others_read_the_memory_of_an_emulated_gpu(dtype, change, shape):
    ours, wanted = (change(numbered(shape, dtype, device)) for device in ("cuda", "cpu"))
    theirs = np.from_dlpack(ours)
    assert theirs.dtype == dtype and theirs.shape == wanted.shape and (theirs == wanted.numpy()).all()
    if theirs.size:
        assert theirs.ctypes.data == ours.data.address


def test_pytorch_writes_to_the_memory_of_an_emulated_gpu():
    torch = pytest.importorskip("torch")
    ours = numbered(device="cuda")
    torch.from_dlpack(ours)[1, 1] = -1
    assert ours.numpy()[1, 1] == -1


def test_memory_is_held_while_another_library_has_it_and_no_longer():
    before, lent = minidl.cuda.memory_allocated(), len(dlpack_capsules._lent)
    theirs = np.from_dlpack(numbered(device="cuda"))
    assert minidl.cuda.memory_allocated() > before and len(dlpack_capsules._lent) == lent + 1
    assert theirs[2, 3] == 11
    del theirs
    assert minidl.cuda.memory_allocated() == before and len(dlpack_capsules._lent) == lent
    capsule = numbered(device="cuda").__dlpack__()
    assert minidl.cuda.memory_allocated() > before
    del capsule  # that nobody took
    assert minidl.cuda.memory_allocated() == before and len(dlpack_capsules._lent) == lent


@pytest.mark.parametrize("view", [np.s_[:], np.s_[1:, ::2], np.s_[::-1], np.s_[:, ::-1], np.s_[:0], np.s_[1, 2, ...]])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_takes_the_memory_of_others(view, dtype):
    """The capsule is one of NumPy's, as an emulated GPU's memory is the CPU's."""
    theirs = np.arange(12).reshape(3, 4).astype(dtype)
    ours = minidl.Tensor(dlpack_capsules.from_capsule(np.asarray(theirs[view]).__dlpack__()))
    assert ours.device == "cuda" and ours.dtype == dtype and ours.shape == theirs[view].shape
    np.testing.assert_array_equal(ours.numpy(), theirs[view])
    if dtype == "float32" and theirs[view].size:
        np.testing.assert_array_equal((ours + ours).numpy(), 2 * theirs[view])
        ours.kernels.fill(ours.data, -1)
        assert (theirs[view] == -1).all()


def test_what_is_taken_goes_back_with_the_last_of_its_arrays():
    theirs = np.ones(5, np.float32)
    count = sys.getrefcount(theirs)
    capsule = theirs.__dlpack__()
    ours = dlpack_capsules.from_capsule(capsule)
    with pytest.raises(BufferError, match="nobody has taken"):
        dlpack_capsules.from_capsule(capsule)
    view = ours.view((2,), None, 1)
    del capsule, ours
    gc.collect()
    assert sys.getrefcount(theirs) > count
    del view
    assert sys.getrefcount(theirs) == count


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(BufferError, match="requires a gradient"):
        np.from_dlpack(minidl.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="meta"):
        np.from_dlpack(minidl.ones(2, device="meta"))
    with pytest.raises(BufferError, match="int32"):
        minidl.from_dlpack(np.ones(2, np.int32))
    with pytest.raises(BufferError, match="float32, float64, int64 and bool alone"):
        dlpack_capsules.from_capsule(np.ones(2, np.int32).__dlpack__())


def test_the_cuda_array_interface_is_there_on_a_gpu_alone(monkeypatch):
    x = numbered(device="cuda")
    assert not hasattr(x, "__cuda_array_interface__")  # the emulator's memory is the host's
    monkeypatch.setattr(dlpack_capsules, "KIND", dlpack_capsules.CUDA)
    given = x.transpose(0, 1).__cuda_array_interface__
    assert given["shape"] == (4, 3) and given["strides"] == (4, 16) and given["typestr"] == "<f4"
    assert given["data"] == (x.data.address, False) and given["version"] == 3
    assert not hasattr(numbered(), "__cuda_array_interface__")
    with pytest.raises(RuntimeError, match="detach"):
        x.requires_grad_().__cuda_array_interface__  # noqa: B018


def test_what_others_still_have_when_python_ends_does_no_harm():
    code = """
import numpy as np
import minidl
kept = np.from_dlpack(minidl.ones(3, device="cuda"))
capsule = minidl.ones(3, device="cuda").__dlpack__()
from minidl.kernels.cuda import dlpack_capsules
from minidl.kernels.dlpack_kinds import CUDA
ours = dlpack_capsules.from_capsule(np.ones(3, np.float32).__dlpack__())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and not result.stderr, result.stderr
