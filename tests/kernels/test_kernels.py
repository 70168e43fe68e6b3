"""The devices have the same kernels, and meta records what they cost."""

import inspect

import numpy as np
import pytest

import minidl
from minidl import models, nn, ops
from minidl.kernels import cpu, for_device, meta

NOT_KERNELS = {
    "record", "note", "keep_freed_memory", "KernelCall", "MetaArray",
    "CudaArray", "Download", "Event", "is_pinned", "pinned", "upload",
}  # fmt: skip


def kernels(device):
    return {n: f for n, f in vars(device).items() if callable(f) and n[0] != "_" and n not in NOT_KERNELS}


@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_every_device_has_the_same_kernels_with_the_same_arguments(device):
    ours, others = kernels(cpu), kernels(for_device(device))
    assert ours.keys() == others.keys()
    for name, kernel in ours.items():
        taken = len(inspect.signature(others[name]).parameters)
        if not inspect.isfunction(kernel):  # NumPy's own
            assert kernel.nin == taken
            continue
        assert list(inspect.signature(ours[name]).parameters) == list(inspect.signature(others[name]).parameters), name


def profile(function, *inputs):
    """The calls of forward, and of backward."""
    with meta.record() as forward:
        out = function(*inputs)
    gradient = minidl.ones(out.shape, device="meta")
    with meta.record() as backward:
        out.backward(gradient)
    return forward, backward


def zeros(*shape):
    return minidl.zeros(shape, device="meta").requires_grad_()


def flops(calls):
    return sum(call.flops for call in calls)


def test_a_matrix_product_costs_2mnk_forward_and_twice_that_backward():
    forward, backward = profile(ops.matmul, zeros(7, 2, 3), zeros(7, 3, 5))
    assert flops(forward) == 2 * 7 * 2 * 5 * 3
    assert flops(backward) == 2 * flops(forward)
    (call,) = forward
    assert call.shapes == ((7, 2, 5, 3),)
    assert (call.bytes_read, call.bytes_written) == (4 * (7 * 2 * 3 + 7 * 3 * 5), 4 * 7 * 2 * 5)


def test_a_linear_layer_costs_its_closed_form():
    rows, inside, out = 2 * 4, 3, 5
    forward, backward = profile(ops.linear, zeros(2, 4, inside), zeros(out, inside), zeros(out))
    assert flops(forward) == 2 * rows * inside * out + rows * out
    assert flops(backward) == 2 * 2 * rows * inside * out + rows * out


def test_a_convolution_costs_its_closed_form():
    n, c, o, kernel, size = 2, 3, 4, 3, 8
    forward, backward = profile(lambda x, w: ops.conv2d(x, w, padding=1), zeros(n, c, size, size), zeros(o, c, 3, 3))
    assert flops(forward) == 2 * n * o * size**2 * c * kernel**2
    assert flops(backward) == 2 * flops(forward)
    _, with_bias = profile(ops.conv2d, zeros(n, c, size, size), zeros(o, c, 3, 3), zeros(o))
    (sums,) = (call for call in with_bias if call.name == "channel_sums")
    assert (sums.flops, sums.shapes) == (n * o * (size - 2) ** 2, ((n, o, size - 2, size - 2), (o,)))


def test_groups_divide_the_cost_of_a_convolution_and_dilation_leaves_it():
    n, c, o, kernel, size, groups = 2, 6, 4, 3, 8, 2
    x, weight = zeros(n, c, size, size), zeros(o, c // groups, kernel, kernel)
    forward, backward = profile(lambda x, w: ops.conv2d(x, w, padding=2, dilation=2, groups=groups), x, weight)
    assert flops(forward) == 2 * n * o * size**2 * c * kernel**2 // groups
    assert flops(backward) == 2 * flops(forward)
    transposed, _ = profile(lambda x, w: ops.conv_transpose2d(x, w, stride=2, groups=groups), x, zeros(c, o, 3, 3))
    assert flops(transposed) == 2 * n * c * size**2 * o * kernel**2


@pytest.mark.parametrize("shape", [(3, 5, 2, 2), (2, 3, 9, 8), (0, 3, 4, 4), (4, 1, 8, 1)])
def test_channel_sums_are_those_of_numpy_whatever_the_order_of_memory(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    for images in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), x[:, :, ::-1]):
        np.testing.assert_allclose(cpu.channel_sums(images), images.sum((0, 2, 3)), atol=1e-12)


def test_an_input_that_wants_no_gradient_costs_none():
    _, backward = profile(ops.linear, minidl.zeros(4, 3, device="meta"), zeros(5, 3))
    assert flops(backward) == 2 * 4 * 3 * 5


def test_a_fused_layer_is_one_call():
    target = minidl.zeros(4, dtype="int64", device="meta")
    for function, shapes in [
        (lambda x: ops.softmax(x, -1), [(4, 6)]),
        (ops.gelu, [(4, 6)]),
        (lambda x, w, b: ops.layer_norm(x, 6, w, b), [(4, 6), (6,), (6,)]),
        (lambda x, w, b: ops.group_norm(x, 2, w, b), [(4, 6), (6,), (6,)]),
        (lambda x, w: ops.rms_norm(x, 6, w), [(4, 6), (6,)]),
        (lambda x: ops.cross_entropy_sum(x, target), [(4, 6)]),
    ]:
        forward, backward = profile(function, *(zeros(*shape) for shape in shapes))
        assert [sum(call.bytes_written > 0 for call in calls) for calls in (forward, backward)] == [1, 1]


def test_a_gpt_costs_what_its_parameters_say():
    """Forward is 2 FLOPs a parameter and token, attention's 4 sequence^2 hidden a layer, and little else."""
    layers, hidden, vocabulary, sequence, batch = 3, 256, 512, 64, 2
    with minidl.device("meta"):
        model = models.gpt(layers, hidden, 4, vocabulary, sequence)
        x, y = model.example(batch)
        with meta.record() as calls:
            nn.CrossEntropyLoss()(model(x), y)
    products = flops(call for call in calls if call.kind == "product")
    matrices = layers * 12 * hidden**2 + hidden * vocabulary
    assert products == 2 * batch * sequence * matrices + layers * 4 * batch * sequence**2 * hidden
    assert flops(calls) < 1.1 * products


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (70, 300), (3, 40_000)])
def test_kernels_in_blocks_equal_those_on_the_whole(shape):
    generator = np.random.default_rng(0)
    x, grad = (generator.standard_normal(shape) for _ in range(2))
    target = generator.integers(shape[1], size=shape[0])
    loss, probabilities = cpu.cross_entropy(x, target, -100)
    shifted = np.exp(x - x.max(1, keepdims=True))
    expected = shifted / shifted.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected)
    np.testing.assert_allclose(loss, -np.log(expected[np.arange(len(x)), target]).sum())
    y, mean, inverse = cpu.layer_norm(x, np.ones(shape[1]), np.zeros(shape[1]), 0.1)
    np.testing.assert_allclose(y, (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 0.1), atol=1e-12)
    np.testing.assert_allclose(
        cpu.layer_norm_grad(grad, x, mean, inverse, np.ones(shape[1]))[2], grad.sum(0), atol=1e-9
    )
    inner = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    np.testing.assert_allclose(cpu.gelu(x, "tanh"), 0.5 * x * (1 + inner), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_where_and_masked_on_many_elements_choose_as_numpy_does(dtype):
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((2, 200, 100)) * 10).astype(dtype)
    if dtype[0] == "f":
        a[0], b[1] = np.nan, np.inf
    condition = generator.random((200, 100)) < 0.5
    for x, y in ((a, b), (a[::-1], b.T.copy().T), (a, b[:1]), (a[:, :1], b), (a, b[0, 0]), (a[0, 0], b)):
        np.testing.assert_array_equal(cpu.where(condition, x, y), np.where(condition, x, y))
        assert cpu.where(condition, x, y).dtype == dtype
    np.testing.assert_array_equal(cpu.where(condition, a, 0), np.where(condition, a, np.zeros((), dtype)))
    np.testing.assert_array_equal(cpu.masked(a, condition), np.where(condition, a, np.zeros((), dtype)))
    np.testing.assert_array_equal(cpu.masked(a[:, :1], condition), np.where(condition, a[:, :1], np.zeros((), dtype)))


def test_fill_writes_a_number_everywhere_and_on_meta_the_bytes_it_writes():
    array = np.zeros((3, 4), np.float32)
    cpu.fill(array[:, 1:3], 7)
    assert array.sum() == 6 * 7 and (array[:, 1:3] == 7).all()
    target = zeros(3, 4).data
    with meta.record() as calls:
        meta.fill(target, 7)
    assert [(call.name, call.bytes_read, call.bytes_written) for call in calls] == [("fill", 0, 4 * 12)]
