"""The kernels that `bench cuda` times, on arrays of their usual sizes; on meta the simulator prices the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

F = np.float32


@dataclass(frozen=True)
class Case:
    """A kernel on arrays, the larger of `shape`: what it moves and multiplies, and the same with PyTorch, if it has."""

    name: str
    shape: tuple[int, ...]
    run: Callable[[], object]
    nbytes: float
    flops: float = 0.0
    library: Callable[[], object] | None = None


def cases(k: ModuleType, scale: int = 1, torch: ModuleType | None = None) -> Iterator[Case]:
    """The kernels, one at a time: arrays of 256 MB and products of 4096 a side, each size divided by `scale`.

    k: the kernels of a device. torch: PyTorch, where it is to do the same.
    """
    rows, width, side = max(2, 65536 // scale), max(8, 1024 // scale), max(16, 4096 // scale)
    elements, size = rows * width, 4 * rows * width

    def array(*shape):
        return k.drawn(lambda shape: np.random.default_rng(0).standard_normal(shape, F), shape, F)

    def theirs(function: Callable, *shapes: tuple[int, ...]) -> Callable[[], object] | None:
        """PyTorch's function of arrays of these shapes."""
        if torch is None:
            return None
        given = [torch.randn(*shape, device="cuda") for shape in shapes]
        return lambda: function(torch, *given)

    a, b, w = array(rows, width), array(rows, width), array(width)
    yield Case("add", a.shape, lambda: k.add(a, b), 3 * size)
    yield Case("gelu", a.shape, lambda: k.gelu(a, "tanh"), 2 * size)
    yield Case("sum", a.shape, lambda: k.sum(a, 0, False), size)
    library = theirs(lambda torch, x: torch.softmax(x, -1), a.shape)
    yield Case("softmax", a.shape, lambda: k.softmax(a, 1), 2 * size, library=library)
    library = theirs(lambda torch, x, w: torch.nn.functional.layer_norm(x, w.shape, w, w), a.shape, w.shape)
    yield Case("layer_norm", a.shape, lambda: k.layer_norm(a, w, w, 1e-5), 2 * size, library=library)
    _, mean, inverse = k.layer_norm(a, w, w, 1e-5)
    yield Case("layer_norm_grad", a.shape, lambda: k.layer_norm_grad(b, a, mean, inverse, w), 3 * size)
    labels = k.array(np.arange(rows) % width, np.int64)
    yield Case("cross_entropy", a.shape, lambda: k.cross_entropy(a, labels, -100), 2 * size)
    yield Case("dropout", a.shape, lambda: k.dropout(a, 0.1), 2 * size + elements)
    yield Case("embedding", (rows, width), lambda: k.embedding(b, labels), 2 * size)
    flat = [array(elements // 4) for _ in range(4)]  # parameter, gradient and two moments: 256 MB together
    adam = (*flat, None, 0.9, 0.999, 1e-8, 1e-9, 0.0, 1.0, 0.0, 1.0, 1.0)
    yield Case("adam_update", flat[0].shape, lambda: k.adam_update(*adam), 7 * size // 4)
    images = array(max(2, 256 // scale), 64, max(4, 64 // scale), max(4, 64 // scale))
    mean, variance = k.channel_moments(images)
    norm = lambda: k.batch_norm(images, mean, variance, None, None)  # noqa: E731
    yield Case("batch_norm", images.shape, norm, 2 * images.nbytes)
    for name, shape in (("matmul", (side, side)), ("matmul", (16, side // 4, side // 4))):
        x, y = array(*shape), array(*shape)
        library = theirs(lambda torch, x, y: x @ y, shape, shape)
        yield Case(name, shape, lambda x=x, y=y: k.matmul(x, y), 3 * x.nbytes, 2 * x.size * shape[-1], library)
    x, w = array(max(1, 64 // scale), 64, max(4, 64 // scale), max(4, 64 // scale)), array(64, 64, 3, 3)
    library = theirs(lambda torch, x, w: torch.nn.functional.conv2d(x, w, padding=1), x.shape, w.shape)
    convolve = lambda: k.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1)  # noqa: E731
    yield Case("conv2d", x.shape, convolve, 2 * x.nbytes, 2 * x.size * w.size // 64, library)
    shape = (max(1, 8 // scale), max(1, 16 // scale), max(16, 2048 // scale), 64)
    q, key, v = (array(*shape) for _ in range(3))
    attend = lambda torch, q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v)  # noqa: E731
    attention = lambda: k.attention(q, key, v, 0.125, False)  # noqa: E731
    library = theirs(attend, shape, shape, shape)
    yield Case("attention", shape, attention, 4 * q.nbytes, 4 * q.size * shape[2], library)
