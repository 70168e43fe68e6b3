"""With MINIDL_CUDA_SYNC=1 what goes wrong on the GPU is raised by the launch that caused it, and names the kernel."""

import numpy as np
import pytest

import minidl
from minidl import models, nn, optim
from minidl.kernels import for_device
from minidl.kernels.cuda import device, emulator, kernel_launch, refusals
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
    monkeypatch.setattr(kernel_launch, "SYNCHRONOUS", True)
    with pytest.raises(RaceError, match=r", in the kernel \S*test_cuda_kernel_launch\.racing\.kernel$"):
        kernel_launch.launch(racing(1), 1, 4, x)
    monkeypatch.setattr(device, "synchronize", fail)
    with pytest.raises(RuntimeError, match="an illegal memory access, in the kernel .*elementwise.map2.kernel$"):
        cuda.add(x, x)


@pytest.fixture
def waits(monkeypatch):
    """Of what kind the host's waits for the GPU are, one after another."""
    found = []

    def counted(owner, what):
        real = owner.synchronize

        def synchronize(*arguments):
            found.append(what)
            return real(*arguments)

        monkeypatch.setattr(owner, "synchronize", synchronize)

    for owner, what in ((device, "device"), (device.Stream, "stream"), (device.Event, "event")):
        counted(owner, what)
    monkeypatch.setattr(kernel_launch, "SYNCHRONOUS", False)
    monkeypatch.setattr(refusals, "AT_ONCE", False)
    return found


def test_without_it_a_kernel_waits_for_nothing_and_who_reads_its_result_waits_once(waits):
    x = cuda.full((4,), 1.0, np.float32)
    y = cuda.add(x, x)
    assert waits == []
    assert cuda.to_numpy(y).tolist() == [2, 2, 2, 2]
    assert waits == ["stream"]


def test_with_it_each_kernel_waits(waits, monkeypatch):
    monkeypatch.setattr(kernel_launch, "SYNCHRONOUS", True)
    cuda.full((4,), 1.0, np.float32)
    assert waits == ["device"]


def perceptron():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3)), (minidl.ones(2, 4), 2)


def convolutions():
    layers = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 3)), (minidl.ones(2, 1, 4, 4), 2)


def transformer():
    model = models.gpt(layers=1, hidden=8, heads=2, vocabulary=8, sequence=4)
    return model, (minidl.zeros(2, 4, dtype="int64"), 2, 4)


@pytest.mark.parametrize("made", [perceptron, convolutions, transformer])
def test_a_step_of_a_training_never_waits_for_the_gpu(made, waits):
    model, (x, *labels) = made()
    model.to("cuda")
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):  # what is made once is there in the second
        waits.clear()
        optimizer.zero_grad()
        target = minidl.zeros(labels, dtype="int64", device="cuda")
        nn.CrossEntropyLoss()(model(x.to("cuda")), target).backward()
        optimizer.step()
    assert not waits
