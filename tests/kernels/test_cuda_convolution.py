"""Convolutions on the GPU, in the emulator, against those of the CPU."""

import numpy as np
import pytest

from minidl.kernels import cpu, for_device, shapes
from minidl.kernels.cuda import tiled

pytestmark = pytest.mark.usefixtures("thread_order")
cuda = for_device("cuda")
RNG = np.random.default_rng(0)

CASES = {  # x, weight, stride, padding, dilation, groups
    "plain": ((2, 2, 4, 4), (3, 2, 3, 2), (1, 1), (0, 0), (1, 1), 1),
    "padded by more than the kernel": ((1, 2, 3, 3), (3, 2, 2, 2), (1, 1), (2, 3), (1, 1), 1),
    "strided": ((2, 2, 6, 7), (3, 2, 3, 3), (2, 3), (1, 0), (1, 1), 1),
    "strided by more than the kernel": ((1, 2, 7, 5), (2, 2, 2, 1), (3, 2), (0, 0), (1, 1), 1),
    "dilated": ((1, 2, 6, 7), (2, 2, 2, 3), (1, 1), (1, 2), (2, 2), 1),
    "all at once, in groups": ((2, 4, 5, 4), (6, 2, 3, 2), (2, 1), (1, 2), (1, 2), 2),
    "depthwise": ((1, 3, 4, 5), (3, 1, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    "one by one": ((2, 5, 3, 3), (18, 5, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "no images": ((0, 2, 4, 4), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1),
}


def numbers(shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


def on_gpu(*arrays):
    return [cuda.array(x, x.dtype) for x in arrays]


def same(found, expected):
    found = cuda.to_numpy(found)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    tolerance = 1e-12 if found.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * abs(expected).max(initial=1))


@pytest.mark.parametrize("case", CASES)
def test_a_convolution_and_its_gradients_are_the_cpu_s(case):
    x_shape, weight_shape, *options = CASES[case]
    dtype = np.float64 if "all" in case else np.float32
    x, weight, bias = numbers(x_shape, dtype), numbers(weight_shape, dtype), numbers(weight_shape[:1], dtype)
    out_size = shapes.windows(x_shape[2:], weight_shape[2:], *options[:3])
    grad = numbers((x_shape[0], weight_shape[0], *out_size), dtype)
    given_x, given_weight, given_bias, given_grad = on_gpu(x, weight, bias, grad)
    same(cuda.conv2d(given_x, given_weight, given_bias, *options), cpu.conv2d(x, weight, bias, *options))
    same(cuda.conv2d(given_x, given_weight, None, *options), cpu.conv2d(x, weight, None, *options))
    same(
        cuda.conv2d_grad_input(given_grad, given_weight, x_shape, *options),
        cpu.conv2d_grad_input(grad, weight, x_shape, *options),
    )
    same(
        cuda.conv2d_grad_weight(given_grad, given_x, weight_shape, *options),
        cpu.conv2d_grad_weight(grad, x, weight_shape, *options),
    )


def test_images_and_weights_may_lie_in_any_order_of_memory():
    x, weight = numbers((2, 4, 5, 3)), numbers((3, 2, 2, 3))  # channels last
    given_x, given_weight = (cuda.permute(a, (0, 3, 1, 2)) for a in on_gpu(x, weight))
    x, weight = x.transpose(0, 3, 1, 2), weight.transpose(0, 3, 1, 2)
    options = (1, 1), (1, 1), (1, 1), 1
    same(cuda.conv2d(given_x, given_weight, None, *options), cpu.conv2d(x, weight, None, *options))
    expected = cpu.conv2d_grad_input(x, weight, (2, 3, 3, 4), *options)
    same(cuda.conv2d_grad_input(given_x, given_weight, (2, 3, 3, 4), *options), expected)


def test_a_depth_cut_into_parts_gives_the_same_convolution(monkeypatch):
    monkeypatch.setattr(tiled, "plan", lambda *sizes: (tiled.SMALL, 3))
    test_a_convolution_and_its_gradients_are_the_cpu_s("all at once, in groups")


def test_large_tiles_give_the_same_convolution(monkeypatch):
    monkeypatch.setattr(tiled, "plan", lambda *sizes: (tiled.MEDIUM, 1))
    test_a_convolution_and_its_gradients_are_the_cpu_s("plain")


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 17, 2, 1), (0, 2, 3, 3), (3, 1, 16, 12)])
def test_channel_sums_are_the_cpu_s(shape):
    x = numbers(shape)
    same(cuda.channel_sums(*on_gpu(x)), cpu.channel_sums(x))
