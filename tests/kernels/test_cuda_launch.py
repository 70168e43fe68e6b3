"""With MINIDL_CUDA_SYNC=1 what goes wrong on the GPU is raised by the launch that caused it, and names the kernel."""

import numpy as np
import pytest

from minidl.kernels import for_device
from minidl.kernels.cuda import device, emulator, launch
from minidl.kernels.cuda.emulated_memory import RaceError

cuda = for_device("cuda")


def racing(shift):
    @emulator.jit
    def kernel(x):
        x[0] = x[emulator.threadIdx.x] + shift

    return kernel


def fail():
    raise RuntimeError("the GPU cannot go on: an illegal memory access")


def test_an_error_names_the_kernel(monkeypatch):
    x = cuda.full((4,), 1.0, np.float32)
    monkeypatch.setattr(launch, "SYNCHRONOUS", True)
    with pytest.raises(RaceError, match=r", in the kernel \S*test_cuda_launch\.racing\.kernel$"):
        launch.launch(racing(1), 1, 4, x)
    monkeypatch.setattr(device, "synchronize", fail)
    with pytest.raises(RuntimeError, match="an illegal memory access, in the kernel .*elementwise.map2.kernel$"):
        cuda.add(x, x)


def test_without_it_nothing_waits_for_the_gpu(monkeypatch):
    x = cuda.full((4,), 1.0, np.float32)
    monkeypatch.setattr(launch, "SYNCHRONOUS", False)
    monkeypatch.setattr(device, "synchronize", fail)
    assert cuda.to_numpy(cuda.add(x, x)).tolist() == [2, 2, 2, 2]
