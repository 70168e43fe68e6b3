"""The compiled pooling kernels give what their NumPy twins give, whatever the windows, and let no NaN disappear."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.kernels import cpu
from minidl.kernels.cpu import fast
from minidl.kernels.pooling_windows import adaptive, regular

N, C, HEIGHT, WIDTH = 2, 5, 81, 90
WINDOWS = {
    "2 × 2": (regular(HEIGHT, 2, 2, 0), regular(WIDTH, 2, 2, 0)),
    "overlapping and padded": (regular(HEIGHT, 3, 2, 1), regular(WIDTH, 4, 1, 2)),
    "over the end": (regular(HEIGHT, 4, 3, 1, 1, True), regular(WIDTH, 4, 3, 2, 1, True)),
    "with gaps": (regular(HEIGHT, 2, 3, 0), regular(WIDTH, 1, 3, 0)),
    "dilated": (regular(HEIGHT, 3, 2, 1, 2), regular(WIDTH, 2, 1, 1, 3)),
    "adaptive": (adaptive(HEIGHT, 7), adaptive(WIDTH, 31)),
    "adaptive, more than there are": (adaptive(HEIGHT, 100), adaptive(WIDTH, 3)),
    "of more than 256 elements": (regular(HEIGHT, 20, 20, 5), regular(WIDTH, 20, 10, 0)),
}


def images(height=HEIGHT, width=WIDTH):
    return np.random.default_rng(0).standard_normal((N, C, height, width)).astype(np.float32)


@pytest.mark.parametrize("name", WINDOWS)
def test_compiled_pooling_equals_its_numpy_twin_in_float64(name):
    windows = WINDOWS[name]
    x, grad = images(), images(*map(len, windows))
    assert fast.use_compiled(x)
    y, which = cpu.max_pool2d(x, *windows)
    exact, exact_which = cpu.max_pool2d(x.astype(np.float64), *windows)
    assert (y.dtype, which.dtype) == (np.float32, np.int32 if "256" in name else np.uint8)
    np.testing.assert_array_equal(y, exact)
    np.testing.assert_array_equal(which, exact_which)
    np.testing.assert_array_equal(cpu.max_pool2d_take(x, which, *windows), y)
    for ours, exact in [
        (cpu.max_pool2d_grad(grad, which, *windows), cpu.max_pool2d_grad(grad.astype(np.float64), which, *windows)),
        (cpu.avg_pool2d(x, *windows), cpu.avg_pool2d(x.astype(np.float64), *windows)),
        (cpu.avg_pool2d_grad(grad, *windows), cpu.avg_pool2d_grad(grad.astype(np.float64), *windows)),
    ]:
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)


@st.composite
def pools(draw, size):
    """Windows along a dimension of `size`, of any kind that ops make."""
    if draw(st.booleans()):
        return adaptive(size, draw(st.integers(1, 9)))
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    padding, ceil_mode, counted = draw(st.integers(0, kernel // 2)), draw(st.booleans()), draw(st.booleans())
    return regular(size, kernel, draw(st.integers(1, 4)), padding, dilation, ceil_mode, counted)


@given(st.integers(7, 16), st.integers(7, 16), st.integers(1, 20), st.data())
def test_the_fast_kernels_give_what_the_plain_ones_give_for_all_windows(height, width, channels, data):
    windows = data.draw(pools(height)), data.draw(pools(width))
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, channels, height, width), np.float32)
    grad = generator.standard_normal((2, channels, *map(len, windows)), np.float32)
    found = []
    for compiled in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast, "use_compiled", lambda x, least=0, on=compiled: on and x.dtype == np.float32)
            y, which = cpu.max_pool2d(x, *windows)
            gradients = cpu.max_pool2d_grad(grad, which, *windows), cpu.avg_pool2d_grad(grad, *windows)
            found.append((y, which, cpu.avg_pool2d(x, *windows), *gradients))
    for plain, ours in zip(*found, strict=True):
        assert ours.dtype == plain.dtype
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", WINDOWS)
def test_a_nan_comes_out_of_the_windows_that_hold_it_and_of_no_other(name, dtype):
    rows, columns = WINDOWS[name]
    x = images().astype(dtype)
    x[1, 3, 42, 57] = np.nan
    hit = [[42 in range(a, b, w.step) if w is rows else 57 in range(a, b, w.step)
            for a, b in zip(w.starts, w.stops, strict=True)] for w in (rows, columns)]  # fmt: skip
    expected = np.zeros((N, C, len(rows), len(columns)), bool)
    expected[1, 3] = np.outer(*hit)
    for y in (cpu.max_pool2d(x, rows, columns)[0], cpu.avg_pool2d(x, rows, columns)):
        np.testing.assert_array_equal(np.isnan(y), expected)


def test_the_order_of_memory_does_not_matter():
    x, windows = images(), WINDOWS["2 × 2"]
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for view in (last, np.asfortranarray(x)):
        np.testing.assert_array_equal(cpu.max_pool2d(view, *windows)[0], cpu.max_pool2d(x, *windows)[0])
