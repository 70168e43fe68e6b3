"""Training with device="cuda": on the emulated GPU to the losses of the CPU, and with a trace that shows the copies."""

import functools

import numpy as np
import pytest

import minidl
from minidl import data, models, nn, optim
from minidl.kernels import for_device
from minidl.parallel import Plan, train
from minidl.parallel.runtime import device
from minidl.trace import COMPUTE, COPY

pytestmark = pytest.mark.usefixtures("warm_workers")

LOSS = nn.CrossEntropyLoss()


def perceptron(mesh):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))


def convolutions(mesh):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )


def transformer(mesh):
    return models.gpt(layers=2, hidden=16, heads=2, vocabulary=8, sequence=4)


class Text(data.Dataset):
    """Sequences of 4 words, each to be followed by the next."""

    def __init__(self):
        words = np.random.default_rng(0).integers(8, size=(24, 5))
        self.x, self.y = words[:, :-1], words[:, 1:]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def digits():
    return data.digits()[0]


CASES = {
    "mlp": (perceptron, digits, Plan(micro_batches=2), lambda p: optim.SGD(p, lr=0.1, momentum=0.9)),
    "cnn": (convolutions, digits, Plan(), lambda p: optim.Adam(p, lr=1e-2)),
    "gpt": (transformer, Text, Plan(), lambda p: optim.AdamW(p, lr=1e-2)),
}


@functools.cache
def plainly_trained(name, device):
    """What several tests look at."""
    return trained(name, device)


def trained(name, device, **options):
    build, dataset, plan, optimizer = CASES[name]
    settings = {"batch_size": 4 if name == "mlp" else 2, "steps": 3, "progress": False, "seed": 1} | options
    return train(build, dataset(), plan, optimizer=optimizer, loss=LOSS, device=device, **settings)


@pytest.mark.parametrize("name", CASES)
def test_a_model_trains_to_the_losses_of_the_cpu(name):
    cpu, cuda = (plainly_trained(name, device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cuda.losses, cpu.losses, rtol=1e-4)


def test_a_model_trains_to_the_parameters_of_the_cpu():
    ours, theirs = (plainly_trained("mlp", device).state_dict() for device in ("cuda", "cpu"))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-4, atol=1e-6)


def test_the_way_of_data_to_the_gpu_and_of_the_loss_back_is_seen_in_the_trace():
    step = plainly_trained("mlp", "cuda").trace.of_step(2)
    copies = [event.name for event in step.events if event.lane == COPY]
    parts = {
        "input": ["to the device's format", "to the device"],
        "target": ["to the device's format", "to the device"],
    }
    parts["loss"] = ["to the host", "to the host", "read"]  # the loss, and the weight that divides it
    names = [f"{what}{micro_batch} {part}" for what in parts for micro_batch in (0, 1) for part in parts[what]]
    assert sorted(copies) == sorted(names)
    assert {event.details.nbytes for event in step.events if event.name == "input0 to the device"} == {2 * 64 * 4}
    assert {"F0", "B0", "update"} <= {event.name for event in step.events if event.lane == COMPUTE}
    first = {name: min(e.start for e in step.events if e.name == name) for name in (*copies, "F0", "B0")}
    way = ["input0 to the device's format", "input0 to the device", "F0", "loss0 to the host", "loss0 read"]
    assert sorted(way, key=first.get) == way


def test_the_way_of_the_model_to_the_gpu_is_seen_in_the_first_step():
    step = plainly_trained("mlp", "cuda").trace.of_step(0)
    start = {event.name: event.start for event in step.events}
    for block in (1, 4):
        assert start[f"block {block} to the device's format"] < start[f"block {block} to the device"] < start["F0"]


class Clock:
    """Stands for the module time: its seconds pass as the test says."""

    seconds = 0.0

    def perf_counter(self):
        return self.seconds


def test_after_hours_times_of_the_gpu_are_as_exact_as_in_the_first_second(monkeypatch):
    for_device("cuda")
    from minidl.kernels.cuda import emulated_device

    def as_the_driver_gives_it(event, earlier):
        return float(np.float32(1e3 * exactly(event, earlier))) / 1e3

    exactly, clock = emulated_device.Event.seconds_since, Clock()
    monkeypatch.setattr(emulated_device.Event, "seconds_since", as_the_driver_gives_it)
    for module in (emulated_device, device):
        monkeypatch.setattr(module, "time", clock)
    gpu, moments = device.Gpu(), []
    for step in range(10):  # of 20 minutes
        clock.seconds = 1200.0 * step
        gpu.anchor()
        clock.seconds += 0.1234567
        moments.append((gpu.now(), clock.seconds))
    for moment, seconds in moments:
        assert gpu.seconds(moment) == pytest.approx(seconds, rel=0, abs=1e-7)


def test_a_gpu_is_not_waited_for_twice_in_a_second_to_look_at_the_clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(device, "time", clock)
    gpu = device.Gpu()
    monkeypatch.setattr(device.Gpu, "now", lambda gpu: pytest.fail("waits"))
    clock.seconds = 0.5
    gpu.anchor()


def test_a_checkpoint_of_the_gpu_is_gone_on_with_on_the_cpu(tmp_path):
    trained("mlp", "cuda", steps=1, save=tmp_path / "first.safetensors")
    resumed = trained("mlp", "cpu", resume=tmp_path / "first.safetensors")
    np.testing.assert_allclose(resumed.losses, plainly_trained("mlp", "cpu").losses[1:], rtol=1e-4)


def test_evaluation_and_clipping_are_those_of_the_cpu():
    options = {"evaluate": data.Subset(data.digits()[1], range(2)), "clip_norm": 0.5, "steps": 1}
    cpu, cuda = (trained("mlp", device, **options) for device in ("cpu", "cuda"))
    assert cuda.evaluations[0].loss == pytest.approx(cpu.evaluations[0].loss, rel=1e-4)
    assert cuda.evaluations[0].accuracy == cpu.evaluations[0].accuracy
    np.testing.assert_allclose(cuda.losses, cpu.losses, rtol=1e-4)


def test_several_workers_on_a_gpu_are_refused_before_any_starts():
    with pytest.raises(ValueError, match="device 'cuda' trains on one worker yet, the plan has 2"):
        train(perceptron, digits(), Plan(data=2), optimizer=optim.SGD, loss=LOSS, batch_size=8, steps=1, device="cuda")


def test_a_model_moved_to_the_gpu_keeps_its_values_and_its_optimizer_goes_on_with_it():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: x.numpy().copy() for name, x in model.state_dict().items()}
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model.to("cuda")
    assert {p.device for p in (*model.parameters(), *model.buffers())} == {"cuda"}
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), before[name])
    model(
        minidl.ones(4, 3, device="cuda") * minidl.tensor([[1.0], [2.0], [3.0], [4.0]], device="cuda")
    ).sum().backward()
    optimizer.step()
    assert {p.grad.device for p in model.parameters()} == {"cuda"}
    assert model.cpu()[0].weight.device == "cpu"


def test_a_parameter_of_a_tensor_stays_on_its_device():
    weight = nn.Parameter(minidl.ones(2, device="cuda"))
    assert weight.device == "cuda"
    with pytest.raises(ValueError, match="gradient is on cpu, the tensor on cuda"):
        (weight * 2).backward(minidl.ones(2))
