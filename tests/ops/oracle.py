"""An oracle for ops: random inputs on which an op of ours and PyTorch's must agree in values, dtypes and gradients.

A row names an op of both and draws its arguments:

    Row("linear", ops.linear, F.linear, lambda d: (d.floats(d.size(), 3), d.floats(2, 3), d.floats(2)))
    Row("sum", ops.sum, torch.sum, lambda d: (x := d.floats(*d.shape(1)), d.dim(x), {"keepdim": d.flip()}))

`inputs` is given a Draw and returns the arguments; arrays become tensors, alone or in a list, and a dict at the end is
the options. Sizes 0 and 1, equal elements, both float dtypes and every layout in memory come by themselves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import minidl

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0]
NUMBERS = ("float32", "float64", "int64")
LAYOUTS = ["contiguous", "contiguous", "transposed", "strided", "reversed", "expanded"]
REFUSALS = (ValueError, TypeError, IndexError, RuntimeError, ZeroDivisionError)


@dataclass
class Row:
    """One op of ours beside PyTorch's, and how its arguments are drawn.

    special: NaN, infinities and zeros of both signs are among the floats. tolerance: times that of the dtype. meta:
    the shapes and dtypes of values and gradients on meta are compared too (not where they depend on values).
    """

    name: str
    ours: Callable
    theirs: Callable
    inputs: Callable
    special: bool = False
    tolerance: float = 1
    meta: bool = True

    def __str__(self):
        return self.name


class Draw:
    """What the arguments of an op are drawn with."""

    def __init__(self, draw: Callable, special: bool):
        self.draw = draw
        self.dtype = self.pick("float32", "float64")
        self.values = self.pick("normal", "normal", "halves", *(["special"] if special else []))
        self.generator = np.random.default_rng(draw(st.integers(0, 2**16)))

    def pick(self, *choices):
        return self.draw(st.sampled_from(choices))

    def flip(self) -> bool:
        return self.draw(st.booleans())

    def int(self, low: int, high: int) -> int:
        """An int from low to high, both included."""
        return self.draw(st.integers(low, high))

    def size(self, low: int = 0, high: int = 4) -> int:
        return self.int(low, high)

    def shape(self, least: int = 0, most: int = 4, low: int = 0) -> tuple[int, ...]:
        """A shape of `least` to `most` dimensions, their sizes at least `low`."""
        return tuple(self.draw(st.lists(st.integers(low, 4), min_size=least, max_size=most)))

    def broadcasting(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts to `shape`: some of its sizes 1, some leading ones left out."""
        return tuple(self.pick(n, 1) for n in shape[self.int(0, len(shape)) :])

    def dim(self, x: np.ndarray) -> int:
        """A dimension of x, counted from the front or the back: 0 or -1 too where it has none."""
        most = max(1, x.ndim)
        return self.int(-most, most - 1)

    def dims(self, x: np.ndarray) -> tuple[int, ...]:
        """Different dimensions of x, in any order."""
        some = self.draw(st.lists(st.integers(0, x.ndim - 1), unique=True, min_size=1)) if x.ndim else []
        return tuple(d - x.ndim if self.flip() else d for d in some)

    def floats(self, *shape: int) -> np.ndarray:
        """Normal numbers, or multiples of a half, so that some are equal, and perhaps some that are not finite."""
        x = self.generator.standard_normal(shape)
        if self.values != "normal":
            x = np.round(2 * x) / 2 + 0.0  # no -0
        if self.values == "special":
            x = np.where(self.generator.random(shape) < 0.4, self.generator.choice(SPECIAL, shape), x)
        return laid_out(np.asarray(x, self.dtype), self.pick(*LAYOUTS))

    def positive(self, *shape: int) -> np.ndarray:
        """From 0.5 to 2."""
        return laid_out(self.generator.uniform(0.5, 2, shape).astype(self.dtype), self.pick(*LAYOUTS))

    def distinct(self, *shape: int) -> np.ndarray:
        """Different numbers in any order."""
        values = self.generator.permutation(math.prod(shape)).reshape(shape) / 8 - 1
        return laid_out(np.asarray(values, self.dtype), self.pick("contiguous", "transposed", "strided", "reversed"))

    def ints(self, low: int, high: int, *shape: int) -> np.ndarray:
        """From low up to but not high."""
        return laid_out(self.generator.integers(low, high, shape), self.pick(*LAYOUTS))

    def bools(self, *shape: int) -> np.ndarray:
        return laid_out(np.asarray(self.generator.random(shape) < 0.5), self.pick(*LAYOUTS))

    def any(self, *shape: int, dtypes=(*NUMBERS, "bool")) -> np.ndarray:
        """Of one of the dtypes."""
        dtype = self.pick(*dtypes)
        return self.floats(*shape).astype(dtype) if dtype[0] == "f" else self.ints(-3, 4, *shape).astype(dtype)


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """x in another layout in memory; "expanded" repeats its first slice along a dimension, without a copy."""
    if not x.ndim or not x.size:
        return x
    if layout == "transposed":
        return np.ascontiguousarray(x.T).T
    if layout == "strided":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        return np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    if layout == "expanded":
        return np.broadcast_to(x[:1] if x.ndim % 2 else x[..., :1], x.shape)
    return x


def one(d: Draw):
    """One array of any shape."""
    return (d.floats(*d.shape()),)


def two(d: Draw):
    """Two arrays that broadcast."""
    shape = d.shape()
    shapes = [shape, d.broadcasting(shape)]
    return tuple(d.floats(*s) for s in (shapes if d.flip() else shapes[::-1]))


def mixed(d, dtypes=(*NUMBERS, "bool")):
    """Two arrays that broadcast, of any dtypes, or one beside a number."""
    shape = d.shape(0, 2)
    shapes = [shape, d.broadcasting(shape)]
    a, b = (d.any(*s, dtypes=dtypes) for s in (shapes if d.flip() else shapes[::-1]))
    return a, (d.pick(2, -1.5) if d.flip() else b)


def any_dtype(d):
    return (d.any(*d.shape()),)


def held_to_pytorch(rows: list[Row]) -> Callable:
    """The test, to be given a name, that the rows agree with PyTorch."""

    @pytest.mark.parametrize("row", rows, ids=str)
    @settings(max_examples=20)
    @given(data=st.data())
    def test(row, data):
        compare(row, data.draw)

    return test


def compare(row: Row, draw: Callable) -> None:
    """Draw arguments for `row`, and hold values, dtypes and gradients of ours to PyTorch's.

    Where PyTorch refuses them we must refuse them too; an input that both refuse counts for nothing.
    """
    d = Draw(draw, row.special)
    arguments = row.inputs(d)
    *arguments, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    mine, my_inputs = _tensors(arguments, lambda a: minidl.Tensor(a, requires_grad=a.dtype.kind == "f"))
    other, other_inputs = _tensors(
        arguments, lambda a: torch.tensor(np.ascontiguousarray(a).reshape(a.shape), requires_grad=a.dtype.kind == "f")
    )
    with np.errstate(all="ignore"):
        try:
            expected = _flat(row.theirs(*other, **options))
        except REFUSALS as refusal:
            with pytest.raises(REFUSALS):
                row.ours(*mine, **options)
                pytest.fail(f"PyTorch refuses this: {refusal}")
            reject()
        results = _flat(row.ours(*mine, **options))
        single = any(x.dtype == np.float32 for x in (*my_inputs, *results))  # float64 may have come through float32
        tolerance = row.tolerance * (1e-5 if single else 1e-12)
        assert len(results) == len(expected)
        for result, wanted in zip(results, expected, strict=True):
            _same("value", result, wanted, tolerance)
        grads = [d.floats(*r.shape).astype(r.dtype) if r.dtype.kind == "f" else None for r in results]
        if not any(r.requires_grad for r in expected):
            assert not any(r.requires_grad for r in results), "ours requires a gradient, PyTorch's does not"
            return
        assert all(r.requires_grad == w.requires_grad for r, w in zip(results, expected, strict=True))
        if row.meta:
            _same_on_meta(row, arguments, options, results)
        _backward(results, [minidl.Tensor(g) for g in grads if g is not None])
        pairs = [
            (w, torch.tensor(np.ascontiguousarray(g).reshape(g.shape)))
            for w, g in zip(expected, grads, strict=True)
            if w.requires_grad
        ]
        torch.autograd.backward(*map(list, zip(*pairs, strict=True)))
    for number, (x, wanted) in enumerate(zip(my_inputs, other_inputs, strict=True)):
        if wanted.grad is not None and (x.grad is not None or wanted.grad.any()):
            assert x.grad is not None, f"input {number} got no gradient"
            _same(f"gradient of input {number}", x.grad, wanted.grad, tolerance)


def _tensors(arguments, make):
    """The arguments with every array made a tensor, and the list of these tensors."""
    made = []

    def convert(a):
        if isinstance(a, list) and any(isinstance(x, np.ndarray) for x in a):
            return [convert(x) for x in a]
        if not isinstance(a, np.ndarray):
            return a
        made.append(make(a))
        return made[-1]

    return [convert(a) for a in arguments], made


def _flat(result) -> list:
    return [result] if hasattr(result, "shape") else [tensor for part in result for tensor in _flat(part)]


def _backward(results, grads):
    results = [r for r in results if r.dtype.kind == "f"]
    if len(results) == 1:
        results[0].backward(grads[0])
        return
    total = 0
    for result, grad in zip(results, grads, strict=True):
        if result.requires_grad:
            total = total + (result * grad).sum()
    total.backward()


def _same(what, ours, theirs, tolerance):
    mine, other = ours.numpy(), theirs.detach().numpy()
    assert mine.shape == other.shape, f"the {what} has shape {mine.shape}, PyTorch's {other.shape}"
    assert mine.dtype == other.dtype, f"the {what} has dtype {mine.dtype}, PyTorch's {other.dtype}"
    if mine.dtype.kind != "f":
        np.testing.assert_array_equal(mine, other, err_msg=what)
        return
    finite = np.abs(other[np.isfinite(other)])
    np.testing.assert_allclose(
        mine, other, rtol=10 * tolerance, atol=tolerance * max(1, finite.max(initial=0)), err_msg=what
    )


def _same_on_meta(row, arguments, options, results):
    """On meta the op has the shapes and dtypes that it has on cpu, forward and backward."""

    def make(a):
        return minidl.tensor(a, requires_grad=a.dtype.kind == "f", device="meta")

    inputs, made = _tensors(arguments, make)
    found = _flat(row.ours(*inputs, **options))
    assert [(x.shape, x.dtype) for x in found] == [(x.shape, x.dtype) for x in results]
    _backward(found, [minidl.zeros_like(x) for x in found if x.dtype.kind == "f"])
    assert all(x.grad is None or (x.grad.shape, x.grad.dtype) == (x.shape, x.dtype) for x in made)
