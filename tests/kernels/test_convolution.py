"""The fast ways of convolution give what the plain one gives, which float64 always takes."""

import math
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidl.kernels import algorithms, cpu, meta, shapes
from minidl.kernels.cpu import fast
from minidl.kernels.cpu.fast import threads
from minidl.kernels.cpu.images import channels_last
from minidl.kernels.meta import MetaArray

ORDERS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "strided": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
}


def images(size, channels, generator, least=1 << 16):
    """(n, channels, *size): as many images as a compiled kernel is worth, and a few more."""
    n = -(-least // (channels * size[0] * size[1])) + 1
    return generator.standard_normal((n, channels, *size))


def errors(x, weight, bias, options, order="contiguous"):
    """Of the result and both gradients, computed in float32: (root mean square, largest) in standard deviations."""
    exact = cpu.conv2d(x, weight, bias, *options)
    grad = np.random.default_rng(1).standard_normal(exact.shape)
    x4, weight4, grad4 = (ORDERS[order](a.astype(np.float32)) for a in (x, weight, grad))
    bias4 = None if bias is None else bias.astype(np.float32)
    pairs = [
        (exact, cpu.conv2d(x4, weight4, bias4, *options)),
        (cpu.conv2d_grad_input(grad, weight, x.shape, *options),
         cpu.conv2d_grad_input(grad4, weight4, x.shape, *options)),
        (cpu.conv2d_grad_weight(grad, x, weight.shape, *options),
         cpu.conv2d_grad_weight(grad4, x4, weight.shape, *options)),
    ]  # fmt: skip
    for expected, found in pairs:
        assert found.dtype == np.float32 and found.shape == expected.shape
        error = (found - expected) / (expected.std() or 1)  # 0 where all windows lie in the padding
        yield np.sqrt(np.mean(error**2)), np.abs(error).max()


@settings(max_examples=15)
@given(
    st.tuples(st.integers(6, 21), st.integers(6, 21)), st.sampled_from([16, 32, 48]), st.sampled_from([16, 64]),
    st.tuples(st.integers(0, 2), st.integers(0, 2)), st.booleans(), st.sampled_from(sorted(ORDERS)),
)  # fmt: skip
def test_winograd_is_exact_to_five_digits_for_all_sizes(size, c, o, padding, with_bias, order):
    generator = np.random.default_rng(0)
    x, weight = images(size, c, generator), generator.standard_normal((o, c, 3, 3))
    bias = generator.standard_normal(o) if with_bias else None
    for mean, largest in errors(x, weight, bias, ((1, 1), padding, (1, 1), 1), order):
        assert mean < 5e-6 and largest < 1e-4


def chosen(x, weight, out_size, stride=(1, 1), dilation=(1, 1), groups=1, dtype="float32"):
    return algorithms.convolution(x, np.dtype(dtype), weight, out_size, stride, dilation, groups)


def test_winograd_is_chosen_for_kernels_of_3_by_3_with_many_channels_and_never_for_float64():
    x, weight, size = (8, 32, 20, 20), (64, 32, 3, 3), (20, 20)
    assert chosen(x, weight, size) == "winograd"
    assert chosen(x, weight, size, dtype="float64") == "windows"
    assert chosen((1, 32, 20, 20), weight, size) == "windows"
    for others in (
        ((80, 3, 20, 20), (64, 3, 3, 3), size), (x, (10, 32, 3, 3), size), (x, (64, 32, 3, 5), size),
        (x, weight, size, (1, 2)), (x, weight, size, (1, 1), (2, 2)), (x, (64, 16, 3, 3), size, (1, 1), (1, 1), 2),
        (x, weight, (5, 5)),  # 4 tiles of 4 x 4 for 25 results
    ):  # fmt: skip
        assert chosen(*others) in ("direct", "windows")
    assert chosen(x, weight, (6, 6)) == "winograd"


ALGORITHMS = {  # of kernels of 3 x 3: by the channels, the channels of the result, and its places a side
    (64, 32, 2): "windows", (64, 32, 4): "winograd", (64, 32, 5): "direct", (64, 32, 32): "winograd",
    (3, 32, 2): "windows", (3, 32, 4): "direct", (3, 32, 32): "direct", (3, 20, 32): "windows",
    (16, 32, 2): "windows", (16, 32, 3): "winograd", (8, 16, 8): "direct",
}  # fmt: skip
OTHER_ALGORITHMS = {  # by these, kernel, stride and groups
    (32, 64, 8, (1, 1), 1, 1): "windows", (3, 64, 8, (1, 1), 1, 1): "windows", (16, 32, 2, (5, 5), 1, 1): "windows",
    (16, 32, 8, (5, 5), 1, 1): "direct", (16, 32, 2, (3, 3), 2, 1): "windows", (16, 32, 8, (3, 3), 2, 1): "direct",
    (32, 32, 1, (3, 3), 1, 32): "direct", (32, 32, 8, (3, 3), 1, 2): "direct", (256, 32, 8, (3, 3), 2, 1): "windows",
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "expected"),
    [*(((*c, (3, 3), 1, 1), a) for c, a in ALGORITHMS.items()), *OTHER_ALGORITHMS.items()],
    ids=str,
)
def test_a_convolution_goes_the_way_that_was_measured_to_be_the_fastest_however_many_images_there_are(case, expected):
    c, o, side, kernel, stride, groups = case
    image = c * (side * stride) ** 2
    few, many = -(-algorithms.COMPILED_FROM // image), 10**9 // image

    def by_images(n):
        x, weight = (n, c, side * stride, side * stride), (o, c // groups, *kernel)
        return chosen(x, weight, (side, side), (stride, stride), groups=groups)

    for n in (few, few + 1, 2 * few, 100 * few, many):
        assert by_images(n) == expected, n
    assert by_images(few - 1) == "windows"  # all together not worth the import of Numba


@st.composite
def convolutions(draw):
    """(shape of images, shape of the weight, options), many of them at the edges between the algorithms."""
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))  # noqa: E731
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (1, 1), (2, 5), (5, 3)]))
    stride, dilation = draw(st.sampled_from([(1, 1), (1, 1), (1, 2), (3, 3)])), draw(st.sampled_from([(1, 1), (1, 2)]))
    padding = pair(0, 3)  # in the gradient of the input, that of small kernels would be less than none
    size = tuple(d * (k - 1) + n for d, k, n in zip(dilation, kernel, pair(1, 14), strict=True))
    groups = draw(st.sampled_from([1, 1, 1, 2, 32]))
    c, o = draw(st.sampled_from([(16, 32), (32, 16), (3, 16), (16, 10), (32, 48)])) if groups == 1 else (32, 32)
    all_in_all = draw(st.sampled_from([1, 1, 0.5])) * algorithms.COMPILED_FROM  # elements of the images, or a few more
    n = math.ceil(all_in_all / (c * math.prod(size))) + draw(st.integers(-1, 1))
    return (max(n, 1), c, *size), (o, c // groups, *kernel), (stride, padding, dilation, groups)


@contextmanager
def spied():
    """Collect which of the compiled algorithms run."""
    ran = []
    with pytest.MonkeyPatch.context() as patch:
        for name, module in (("winograd", fast.winograd), ("direct", fast.direct)):
            for kernel in ("conv2d", "conv2d_grad_weight"):
                original = getattr(module, kernel)
                patch.setattr(module, kernel, lambda *a, f=original, name=name: ran.append(name) or f(*a))
        yield ran


def three_kernels(kernels, x, weight, grad, options):
    """Call a convolution and its two gradients, one by one."""
    yield kernels.conv2d(x, weight, None, *options)
    yield kernels.conv2d_grad_weight(grad, x, weight.shape, *options)
    yield kernels.conv2d_grad_input(grad, weight, x.shape, *options)


def at(x, weight, stride, padding, groups):
    return example((x, weight, ((stride, stride), (padding, padding), (1, 1), groups)), "float32")


@settings(max_examples=30)
@given(convolutions(), st.sampled_from(["float32", "float32", "float32", "float64"]))
@at((100, 16, 7, 7), (32, 16, 3, 3), 1, 0, 1)  # results of 5 x 5 are few for tiles, the gradient's 7 x 7 are not
@at((40, 16, 10, 10), (32, 16, 3, 3), 1, 1, 1)  # the images alone are too small for compiled code
@at((200, 16, 5, 5), (32, 16, 3, 3), 1, 3, 1)  # with so much padding the gradient is no convolution
@at((200, 32, 9, 9), (32, 1, 3, 3), 3, 1, 32)  # the gradient is small, but for the zeros between its elements
@at((40, 32, 9, 9), (32, 1, 3, 3), 3, 0, 32)  # and here it is small with them too
def test_the_algorithm_that_meta_writes_down_is_the_one_that_the_cpu_takes(case, dtype):
    x_shape, weight_shape, options = case
    out_shape = (x_shape[0], weight_shape[0], *shapes.windows(x_shape[2:], weight_shape[2:], *options[:3]))
    arrays = [np.zeros(shape, dtype) for shape in (x_shape, weight_shape, out_shape)]
    taken = []
    with spied() as ran:
        for _ in three_kernels(cpu, *arrays, options):
            taken.append(ran.pop() if ran else "windows")
    with meta.record() as calls:
        list(three_kernels(meta, *(MetaArray(x.shape, dtype) for x in arrays), options))
    assert [call.algorithm for call in calls] == taken and not ran


def test_the_error_of_winograd_is_what_its_documentation_says():
    generator = np.random.default_rng(0)
    x, weight = generator.standard_normal((8, 64, 32, 32)), generator.standard_normal((64, 64, 3, 3))
    for mean, largest in errors(x, weight, None, ((1, 1), (1, 1), (1, 1), 1)):
        assert 1e-6 < mean < 3e-6 and largest < 6e-5


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_winograd_spreads_a_nan_over_the_tiles_that_see_it_and_no_further(wrong):
    x = np.ones((8, 16, 24, 24), np.float32)
    x[0, 3, 9, 9] = wrong
    weight = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    with np.errstate(invalid="ignore"):
        y = cpu.conv2d(x, weight, None, (1, 1), (1, 1), (1, 1), 1)
    assert not np.isfinite(y[0, :, 8:11, 8:11]).any()
    y[0, :, 8:12, 8:12] = 0
    assert np.isfinite(y).all()
    grad = np.ones_like(y)
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(cpu.conv2d_grad_weight(grad, x, weight.shape, (1, 1), (1, 1), (1, 1), 1)[:, 3]).any()


@st.composite
def direct_cases(draw):
    """(size, c, o, kernel, options) that go the direct way."""
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))  # noqa: E731
    kernel, stride, padding, dilation = pair(1, 5), pair(1, 3), pair(0, 2), pair(1, 2)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    more = draw(st.integers(0, 12)), 3 * stride[1] + draw(st.integers(0, 12))  # lines of 4 results or more
    size = tuple(d * (k - 1) + 1 + m for d, k, m in zip(dilation, kernel, more, strict=True))
    if draw(st.booleans()) or kernel == (1, 1):
        return size, 32, 32, kernel, (stride, padding, dilation, 32)  # depthwise
    return size, groups * draw(st.integers(1, 5)), groups * 16, kernel, (stride, padding, dilation, groups)


@settings(max_examples=25)
@given(direct_cases(), st.booleans(), st.sampled_from(sorted(ORDERS)))
def test_the_compiled_direct_convolution_equals_the_plain_one(case, with_bias, order):
    size, c, o, kernel, options = case
    generator = np.random.default_rng(0)
    x, weight = images(size, c, generator), generator.standard_normal((o, c // options[3], *kernel))
    bias = generator.standard_normal(o) if with_bias else None
    out_size = shapes.windows(size, kernel, *options[:3])
    stride, _, dilation, groups = options
    assert chosen(x.shape, weight.shape, out_size, stride, dilation, groups) == "direct"
    for mean, largest in errors(x, weight, bias, options, order):
        assert mean < 1e-5 and largest < 1e-4


def test_a_nan_reaches_the_windows_that_see_it_and_no_others():
    x = np.ones((80, 3, 20, 20), np.float32)
    x[0, 1, 9, 9] = np.nan
    y = cpu.conv2d(x, np.ones((16, 3, 3, 3), np.float32), None, (2, 2), (1, 1), (1, 1), 1)
    seen = np.zeros(y.shape, bool)
    rows = [i for i in range(y.shape[2]) if 2 * i - 1 <= 9 <= 2 * i + 1]
    seen[np.ix_([0], range(16), rows, rows)] = True
    np.testing.assert_array_equal(np.isnan(y), seen)


@pytest.mark.parametrize(
    ("c", "o", "kernel", "groups"), [(32, 32, (3, 3), 1), (3, 16, (5, 4), 1), (32, 32, (3, 3), 32), (6, 10, (3, 3), 2)]
)
def test_a_convolution_over_threads_gives_what_one_thread_gives_and_the_same_bits_every_time(c, o, kernel, groups):
    generator = np.random.default_rng(0)
    x = images((20, 20), c, generator).astype(np.float32)
    weight = generator.standard_normal((o, c // groups, *kernel)).astype(np.float32)
    options = (1, 1), (1, 1), (1, 1), groups

    def run():
        y = cpu.conv2d(x, weight, None, *options)
        return (
            y,
            cpu.conv2d_grad_input(y, weight, x.shape, *options),
            cpu.conv2d_grad_weight(y, x, weight.shape, *options),
        )

    before = threads.get_num_threads()
    try:
        threads.set_num_threads(1)
        whole = run()
        threads.set_num_threads(3)
        first, second = run(), run()
    finally:
        threads.set_num_threads(before)
    for a, b, c in zip(whole, first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * a.std())
        np.testing.assert_array_equal(b, c)


@pytest.mark.parametrize("shape", [(9, 33, 20, 20), (3, 16, 64, 64), (90, 3, 16, 17), (400, 200, 1, 1), (5, 40, 500)])
def test_channels_are_put_last_whatever_the_sizes(shape):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    out = channels_last(x)
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, np.moveaxis(x, 1, -1))
