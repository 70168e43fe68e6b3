"""How long each kernel takes, and Python after it: timed where they are used, not one by one.

Small chains of blocks take a training step on the CPU with every kernel call timed, and the same step on meta says,
call by call, what each of them did.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np

from minidl import kernels, nn, optim
from minidl.kernels import meta
from minidl.kernels.meta import MetaArray
from minidl.models.gpt import GPTEmbedding, gpt
from minidl.models.lstm import lstm_classifier
from minidl.models.vae import vae
from minidl.nn.module import Module
from minidl.parallel import blocks
from minidl.parallel.group import ProcessGroup
from minidl.tensor import Tensor, device
from simulator.compute import convolution, timed_as

UPDATE_SIZES = (1 << 8, 1 << 12, 1 << 15, 1 << 16, 1 << 19, 1 << 21)  # elements: compiled code for large ones
CASE_SECONDS = 0.2  # after which a chain is timed no more, once there are enough times
Samples = dict[str, dict[object, list[float]]]  # kernel -> bytes moved, or a Convolution -> times


def cases() -> Iterator[tuple[Callable[[], list[Module]], tuple[int, ...]]]:
    """Chains to time and the shapes of their inputs (tokens where an embedding comes first), small to large."""
    for width, batch in ((32, 8), (64, 32), (256, 64), (512, 256), (1024, 256), (1024, 1024)):
        yield lambda w=width: [
            nn.Linear(w, w), nn.ReLU(), nn.Linear(w, w), nn.GELU("tanh"), nn.LayerNorm(w), nn.Linear(w, 10)
        ], (batch, width)  # fmt: skip
    convolutions = (
        (1, 8, 8, 16), (1, 16, 8, 128), (16, 32, 16, 32), (3, 20, 32, 16), (64, 64, 8, 64), (3, 16, 32, 24),
        (1, 32, 28, 100), (3, 32, 32, 64),
    )  # fmt: skip
    for channels, width, size, batch in convolutions:
        yield lambda c=channels, w=width, s=size: [
            nn.Conv2d(c, w, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(w, w, 3, padding=1), nn.Flatten(),
            nn.Linear(w * (s // 2) ** 2, 10),
        ], (batch, channels, size, size)  # fmt: skip
    for hidden, sequence, batch in ((32, 16, 4), (64, 64, 8), (128, 128, 8)):
        yield lambda h=hidden, s=sequence: [
            *gpt(1, h, 4, 256, s).blocks[:2], *gpt(1, h, 4, 256, s, dropout=0.1).blocks[1:]
        ], (batch, sequence)  # fmt: skip
        yield lambda h=hidden, s=sequence: gpt(
            1, h, 4, 256, s, kv_heads=2, positions="rotary", feed_forward="swiglu", norm="rms"
        ).blocks, (batch, sequence)  # fmt: skip
    for width, size, batch in ((16, 8, 16), (32, 16, 32), (64, 32, 16)):
        yield lambda w=width: [
            nn.Conv2d(w, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(w, 10),
        ], (batch, width, size, size)  # fmt: skip
    for width, steps, batch in ((8, 8, 16), (64, 8, 64), (128, 28, 128)):
        yield lambda w=width, s=steps: lstm_classifier(w, s, w).blocks, (batch, 1, steps, width)
    for width, batch in ((64, 16), (256, 64), (512, 256)):
        yield lambda w=width: [*vae(8, w, w // 2).blocks, nn.Softplus()], (batch, 1, 8, 8)


def kernel_seconds(group: ProcessGroup) -> tuple[dict[str, list[tuple[object, float]]], list[tuple[float, float]]]:
    """For each kernel (bytes moved, seconds), or (Convolution, seconds); and of Python after a call (bytes, seconds).

    Python takes several times as long after a kernel that has moved much, and with it Python's data out of the caches.
    """
    samples: Samples = {}
    pauses: dict[int, list[float]] = {}  # by powers of 4 of the bytes that the call before moved
    spying = _spy_seconds()
    for build, shape in cases():
        for moved, seconds in _time_case(build, shape, samples):
            pauses.setdefault(round(math.log(max(moved, 1), 4)), []).append(seconds)
    for make, size in product(OTHER_OPTIMIZERS, UPDATE_SIZES):
        with device("meta"):
            on_meta = _ready(make, size)
        _time_calls(on_meta.step, _ready(make, size).step, samples)
    points = {
        name: sorted((size, statistics.median(times)) for size, times in sizes.items())
        for name, sizes in samples.items()
    }
    python = [(4.0**power, max(statistics.mean(times) - spying, 1e-8)) for power, times in sorted(pauses.items())]
    return points, python


def _time_case(build, shape, samples: Samples) -> list[tuple[float, float]]:
    """Add the times of one chain's kernel calls to `samples`; returns (bytes moved, seconds till the next) of each."""
    with device("meta"):
        step = _training_step(build())
        tokens = len(shape) == 2 and isinstance(step.chain[0], GPTEmbedding)
        x = MetaArray(shape, "int64" if tokens else "float32")
        step(x)  # makes the optimizer's state
    generator = np.random.default_rng(0)
    real = generator.integers(256, size=shape) if tokens else generator.random(shape, np.float32)
    real_step = _training_step(build())
    real_step(real)
    return _time_calls(lambda: step(x), lambda: real_step(real), samples)


def _time_calls(
    on_meta: Callable[[], object], on_cpu: Callable[[], object], samples: Samples
) -> list[tuple[float, float]]:
    """Add the times of the kernel calls of `on_cpu`; `on_meta` does the same on meta. Returns as `_time_case` does.

    Medians of nine runs, of five where these take long.
    """
    with meta.record() as profile, _spied(MetaArray, lambda: len(profile)) as spied:
        on_meta()
    expected = [(name, profile[before:after]) for name, before, after in spied]

    timed: list[list[float]] = []
    pauses: list[list[float]] = []
    end = time.perf_counter() + CASE_SECONDS
    while len(timed) < 5 or (len(timed) < 9 and time.perf_counter() < end):
        with _spied(np.ndarray, time.perf_counter) as spied:
            on_cpu()
            done = time.perf_counter()
        called, known = [name for name, *_ in spied], [name for name, _ in expected]
        if called != known:
            raise RuntimeError(f"cpu and meta call different kernels: {called} and {known}")
        timed.append([end - start for _, start, end in spied])
        starts = [start for _, start, _ in spied[1:]] + [done]
        pauses.append([start - end for start, (_, _, end) in zip(starts, spied, strict=True)])
    times, after = ([statistics.median(t) for t in zip(*runs, strict=True)] for runs in (timed, pauses))
    for (_, calls), seconds in zip(expected, times, strict=True):
        if len(calls) == 1 and calls[0].name != "matmul":
            call = calls[0]
            size = convolution(call) or call.bytes_read + call.bytes_written
            samples.setdefault(timed_as(call), {}).setdefault(size, []).append(seconds)
    moved = (sum(call.bytes_read + call.bytes_written for call in calls) for _, calls in expected)
    return list(zip(moved, after, strict=True))


def _spy_seconds() -> float:
    """What spying itself adds around a call."""
    with _spied(np.ndarray, time.perf_counter) as spied:
        kernel, x = kernels.BY_ARRAY[np.ndarray].swap_last, np.ones((2, 2))
        runs = []
        for _ in range(20):
            spied.clear()
            began = time.perf_counter()
            for _ in range(100):
                kernel(x)
            runs.append((time.perf_counter() - began - sum(end - start for _, start, end in spied)) / 100)
    return min(runs)


class _training_step:
    """One training step of a chain on arrays of any device, block by block as the worker takes it; with two updates."""

    def __init__(self, chain: list[Module]):
        self.chain, self.loss = chain, nn.CrossEntropyLoss()
        self.parameters = [p for block in chain for p in block.parameters()]
        for p in self.parameters:
            p.gradient_buffer = p.kernels.full(p.shape, 0, p.dtype)
        self.optimizers = optim.SGD(self.parameters, lr=1e-9, momentum=0.9), optim.Adam(self.parameters, lr=1e-9)

    def __call__(self, x) -> None:
        saved = []
        for i, block in enumerate(self.chain):
            x, kept = blocks.forward(block, x, wants_grad=i > 0)
            saved.append(kept)
        target = kernels.BY_ARRAY[type(x)].full(x.shape[:-1], 0, np.dtype("int64"))
        _, _, gradient = blocks.loss_and_gradient(self.loss, x, target)
        for p in self.parameters:
            p.grad = None
        for kept in reversed(saved):
            gradient = kept.backward(gradient)
        for optimizer in self.optimizers:
            optimizer.step()


OTHER_OPTIMIZERS = (optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Lion, optim.LAMB)  # than a _training_step has


def _ready(make: type[optim.Optimizer], size: int) -> optim.Optimizer:
    """An optimizer of one parameter of `size` elements that has a gradient, after its first step."""
    p = nn.Parameter((size,), init=nn.init.constant(1.0))
    p.grad = Tensor(p.kernels.full(p.shape, 1, p.dtype))
    optimizer = make([p], lr=1e-9)
    optimizer.step()
    return optimizer


@contextmanager
def _spied(array_type: type, clock: Callable[[], float]) -> Iterator[list[tuple[str, float, float]]]:
    """Collect (kernel, clock before, clock after) of every call that ops make for arrays of `array_type`."""
    calls: list[tuple[str, float, float]] = []
    original = kernels.BY_ARRAY[array_type]

    class Spy:
        """The kernels, each of which notes its calls."""

        def __getattr__(self, name):
            kernel = getattr(original, name)
            if not callable(kernel):
                return kernel

            def timed(*arguments):
                before = clock()
                result = kernel(*arguments)
                calls.append((name, before, clock()))
                return result

            setattr(self, name, timed)
            return timed

    kernels.BY_ARRAY[array_type] = Spy()
    try:
        yield calls
    finally:
        kernels.BY_ARRAY[array_type] = original
