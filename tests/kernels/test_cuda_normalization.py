"""Layer, RMS, batch and group norm on the GPU give what they give on the CPU."""

import numpy as np
import pytest

from minidl.kernels import cpu, cuda
from minidl.kernels.cuda import columns, emulator

TOLERANCE = {"float32": 5e-6, "float64": 1e-12}
ROWS = [(3, 5), (1, 1), (7, 33), (1, 2100), (0, 3), (2, 0)]
IMAGES = [(3, 4, 2, 5), (2, 4, 70), (5, 4), (0, 4, 2), (1, 2, 3)]


@pytest.fixture(params=[("float32", "forward"), ("float64", "reversed")], ids="-".join)
def dtype(request, monkeypatch):
    """The dtype, and with it the order in which threads run."""
    monkeypatch.setattr(emulator, "order", request.param[1])
    return request.param[0]


def randoms(dtype, *shapes):
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


def on_gpu(x):
    return None if x is None else cuda.array(x, x.dtype)


def same(found, expected, factor=1):
    """Of one array or several."""
    for result, right in zip(*((r,) if not isinstance(r, tuple) else r for r in (found, expected)), strict=True):
        values = cuda.to_numpy(result)
        assert (values.shape, values.dtype) == (right.shape, right.dtype)
        np.testing.assert_allclose(values, right, rtol=(t := factor * TOLERANCE[right.dtype.name]), atol=t)


def both(name, *arguments):
    """What the kernel `name` gives on the GPU and on the CPU."""
    given = [on_gpu(a) if isinstance(a, np.ndarray) else a for a in arguments]
    return getattr(cuda, name)(*given), getattr(cpu, name)(*arguments)


@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("with_parameters", [False, True])
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value", "ignore:divide by zero")
def test_layer_and_rms_norm_and_their_gradients(shape, with_parameters, dtype):
    x, grad, weight, bias = randoms(dtype, shape, shape, shape[1:], shape[1:])
    if not with_parameters:
        weight = bias = None
    if not shape[1]:
        assert cuda.layer_norm(*map(on_gpu, (x, weight, bias)), 0.1)[0].shape == shape
        return
    found, expected = both("layer_norm", x, weight, bias, 0.1)
    same(found, expected)
    same(*both("layer_norm_grad", grad, x, *expected[1:], weight), 4)
    found, expected = both("rms_norm", x, weight, 0.1)
    same(found, expected)
    same(*both("rms_norm_grad", grad, x, expected[1], weight), 4)


def test_the_sums_of_many_columns_and_of_many_rows_are_of_all(dtype):
    for shape in ((2100, 3), (3, 40)):
        a, b, mean, scale = randoms(dtype, shape, shape, shape[:1], shape[:1])
        found = columns.column_sums("grads", *map(on_gpu, (a, b, mean, scale)), by_row=True)
        same(found, (a.sum(0), (a * (b - mean[:, None]) * scale[:, None]).sum(0)), 50)


def test_numbers_far_from_zero_keep_their_variance():
    (x,) = randoms("float32", (4, 300))
    y, _, inverse = cuda.layer_norm(on_gpu(x + 1000), None, None, 0)
    np.testing.assert_allclose(cuda.to_numpy(inverse)[:, 0], 1 / x.std(1), rtol=1e-3)
    _, variance = cuda.channel_moments(on_gpu(x.T + 1000))
    np.testing.assert_allclose(cuda.to_numpy(variance), x.var(1), rtol=1e-3)


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("with_parameters", [False, True])
def test_batch_norm_and_its_gradient(shape, with_parameters, dtype):
    channels = shape[1:2]
    x, grad, weight, bias = randoms(dtype, shape, shape, channels, channels)
    if not with_parameters:
        weight = bias = None
    moments, expected = both("channel_moments", x)
    same(moments, expected)
    mean, inverse = expected[0], (1 / np.sqrt(expected[1] + 0.1)).astype(dtype)
    same(*both("batch_norm", x, mean, inverse, weight, bias), 4)
    found, sums = both("batch_norm_sums", grad, x, mean, inverse)
    same(found, sums, 4)
    count = max(1, x.size // shape[1])
    same(*both("batch_norm_grad", grad, x, mean, inverse, weight, *sums, count), 4)


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("with_parameters", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_group_norm_and_its_gradient(shape, groups, with_parameters, dtype):
    channels = shape[1:2]
    x, grad, weight, bias = randoms(dtype, shape, shape, channels, channels)
    if not with_parameters:
        weight = bias = None
    found, expected = both("group_norm", x, groups, weight, bias, 0.1)
    same(found, expected, 4)
    same(*both("group_norm_grad", grad, x, *expected[1:], weight), 10)


def test_images_with_their_channels_last_in_memory():
    x, grad, weight = randoms("float64", (2, 3, 4, 5), (2, 3, 4, 5), (5,))
    images, grads = cuda.permute(on_gpu(x), (0, 3, 1, 2)), cuda.permute(on_gpu(grad), (0, 3, 1, 2))
    y, mean, inverse = cuda.group_norm(images, 5, on_gpu(weight), None, 0.1)
    same(y, cpu.group_norm(x.transpose(0, 3, 1, 2), 5, weight, None, 0.1)[0])
    right = cpu.group_norm_grad(
        *(a.transpose(0, 3, 1, 2) for a in (grad, x)), *map(cuda.to_numpy, (mean, inverse)), weight
    )
    same(cuda.group_norm_grad(grads, images, mean, inverse, on_gpu(weight)), right)
