"""Example inputs: what a model's `example(batch)` gives. On meta only their shapes matter, and nothing is drawn.

They are partial functions, not closures, so that a model can be pickled.
"""

from collections.abc import Callable
from functools import partial

from minidl import random
from minidl.creation import default_device, tensor, zeros
from minidl.dtypes import float32, int64
from minidl.tensor import Tensor

Example = Callable[[int], tuple[Tensor, Tensor]]


def images(shape: tuple[int, ...], classes: int) -> Example:
    """batch -> x (batch, *shape) float32 in [0, 1), y (batch,) classes."""
    return partial(_images, shape, classes)


def _images(shape, classes, batch):
    if default_device() == "meta":
        return zeros(batch, *shape), zeros(batch, dtype=int64)
    generator = random.generator(0, "example")
    return tensor(generator.random((batch, *shape)), float32), tensor(generator.integers(classes, size=batch))


def tokens(sequence: int, vocabulary: int) -> Example:
    """batch -> x and y (batch, sequence) of token indices, y being x one place further on."""
    return partial(_tokens, sequence, vocabulary)


def _tokens(sequence, vocabulary, batch):
    if default_device() == "meta":
        return zeros(batch, sequence, dtype=int64), zeros(batch, sequence, dtype=int64)
    text = random.generator(0, "example").integers(vocabulary, size=(batch, sequence + 1))
    return tensor(text[:, :-1]), tensor(text[:, 1:])
