"""Every op is held to finite differences, and on meta to the shapes and dtypes that it has on cpu."""

import numpy as np
import pytest
from op_cases import CASES, NAMES, arrays

import minidl
from minidl import autograd, ops
from minidl.testing import gradcheck, gradgradcheck


@pytest.mark.parametrize(("name", "function", "makers"), [(n, f, m) for n, f, *m in CASES], ids=NAMES)
def test_the_gradient_equals_finite_differences(name, function, makers):
    gradcheck(function, *arrays(makers))


@pytest.mark.parametrize("direction", ["one", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "function", "makers"), [(n, f, m) for n, f, *m in CASES], ids=NAMES)
def test_the_second_derivative_equals_finite_differences(name, function, makers, direction):
    gradgradcheck(function, *arrays(makers), tolerance=1e-5, fast_mode=direction == "one")


def on(device, function, makers):
    """The result of `function` and the gradients of its inputs, in float32, on `device`."""
    inputs = [
        minidl.tensor(a, "float32" if a.dtype.kind == "f" else None, a.dtype.kind == "f", device)
        for a in map(np.asarray, arrays(makers))
    ]
    with minidl.device(device):
        out = function(*inputs)
    upstream = np.random.default_rng(1).standard_normal(out.shape)
    out.backward(minidl.tensor(upstream, "float32", device=device))
    return [out, *(i.grad for i in inputs if i.requires_grad)]


@pytest.mark.parametrize(("name", "function", "makers"), [(n, f, m) for n, f, *m in CASES], ids=NAMES)
def test_meta_gives_the_shapes_and_dtypes_of_cpu(name, function, makers):
    meta, cpu = ([(x.shape, x.dtype) for x in on(device, function, makers)] for device in ("meta", "cpu"))
    assert meta == cpu
    assert all(dtype == minidl.float32 for _, dtype in cpu)


@pytest.mark.parametrize(("name", "function", "makers"), [(n, f, m) for n, f, *m in CASES], ids=NAMES)
def test_cuda_gives_the_values_and_gradients_of_cpu(name, function, makers):
    for ours, cpu in zip(on("cuda", function, makers), on("cpu", function, makers), strict=True):
        assert (ours.device, ours.dtype, ours.shape) == ("cuda", cpu.dtype, cpu.shape)
        scale = max(1.0, np.abs(cpu.numpy()).max(initial=0))
        np.testing.assert_allclose(ours.numpy(), cpu.numpy(), rtol=1e-5, atol=1e-5 * scale)


SAMPLE = [
    "multiply", "power, of a tensor", "gelu", "where", "sum, dims kept", "prod, with a zero", "cumsum", "max",
    "softmax", "index, repeated", "matmul, batched", "linear", "layer_norm", "batch_norm", "conv2d, strided and padded",
    "max_pool2d, overlapping", "attention, causal", "lstm", "embedding",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_cuda_gives_the_second_gradients_of_cpu(name):
    ((function, *makers),) = [case for known, *case in CASES if known == name]
    found = {}
    for device in ("cuda", "cpu"):
        inputs = [minidl.tensor(a, None, a.dtype.kind == "f", device) for a in map(np.asarray, arrays(makers))]
        wanted = [x for x in inputs if x.requires_grad]
        with minidl.device(device):
            first = autograd.grad((function(*inputs) ** 2).sum(), wanted, create_graph=True)
            sum((gradient**2).sum() for gradient in first).backward()
        found[device] = [x.grad.numpy() for x in wanted]
    for ours, cpu in zip(*found.values(), strict=True):
        np.testing.assert_allclose(ours, cpu, rtol=1e-8, atol=1e-10 * max(1.0, np.abs(cpu).max()))


def test_a_gradient_is_in_no_other_tensors_memory():
    shared = []
    for name, function, *makers in CASES:
        inputs = [minidl.tensor(a, requires_grad=a.dtype.kind == "f") for a in map(np.asarray, arrays(makers))]
        out = function(*inputs)
        grad = minidl.ones_like(out)
        out.backward(grad)
        gradients = [x.grad.numpy() for x in inputs if x.grad is not None]
        others = [x.numpy() for x in (grad, out, *inputs)]
        for i, gradient in enumerate(gradients):
            if any(np.shares_memory(gradient, other) for other in (*others, *gradients[:i])):
                shared.append(name)
    assert not shared


def test_gradcheck_catches_a_wrong_derivative():
    class Wrong(ops.activation.Tanh):
        def backward(self, grad):
            return grad

    with pytest.raises(AssertionError, match="input 0: the gradient is off"):
        gradcheck(lambda x: Wrong()(x), np.ones(3))


EMPTY = {
    "linear": (lambda x: ops.linear(x, minidl.ones(2, 3), minidl.ones(2)), (0, 3)),
    "linear, sequence": (lambda x: ops.linear(x, minidl.ones(2, 3), minidl.ones(2)), (0, 4, 3)),
    "matmul": (lambda x: x @ minidl.ones(3, 2), (0, 4, 3)),
    "relu": (ops.relu, (0, 3)),
    "gelu": (ops.gelu, (0, 3)),
    "flatten": (lambda x: ops.flatten(x, 1), (0, 2, 3)),
    "softmax": (lambda x: ops.softmax(x, -1), (0, 3)),
    "log_softmax": (lambda x: ops.log_softmax(x, -1), (0, 3)),
    "cross_entropy": (lambda x: ops.cross_entropy_sum(x, minidl.zeros(0, dtype="int64")), (0, 3)),
    "layer_norm": (lambda x: ops.layer_norm(x, 3, minidl.ones(3), minidl.ones(3)), (0, 2, 3)),
    "rms_norm": (lambda x: ops.rms_norm(x, 3, minidl.ones(3)), (0, 2, 3)),
    "group_norm": (lambda x: ops.group_norm(x, 2, minidl.ones(4), minidl.ones(4)), (0, 4, 3)),
    "batch_norm": (lambda x: ops.batch_norm(x, None, None, minidl.ones(3), training=True), (0, 3, 2, 2)),
    "dropout": (lambda x: ops.dropout(x, 0.5), (0, 3)),
    "sum": (lambda x: x.sum(1), (0, 3)),
    "mean": (lambda x: x.mean(-1), (0, 3)),
    "max": (lambda x: x.max(-1)[0], (0, 3)),
    "conv2d": (lambda x: ops.conv2d(x, minidl.ones(2, 3, 3, 3), minidl.ones(2), padding=1), (0, 3, 4, 4)),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 2), (0, 3, 4, 4)),
    "attention": (lambda x: ops.packed_attention(x, is_causal=True), (0, 4, 3, 2, 5)),
    "index": (lambda x: x[:, 1:], (0, 3)),
}


@pytest.mark.parametrize("device", ["cpu", "meta", "cuda"])
@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_batch_goes_forward_and_backward(name, device):
    function, shape = EMPTY[name]
    with minidl.device(device):
        x = minidl.zeros(shape).requires_grad_()
        out = function(x)
        out.backward(minidl.ones(out.shape))
    assert x.grad.shape == shape


def test_an_empty_batch_gives_parameters_a_gradient_of_zero():
    weight, bias = minidl.ones(2, 3).requires_grad_(), minidl.ones(2).requires_grad_()
    ops.linear(minidl.zeros(0, 3), weight, bias).sum().backward()
    table = minidl.ones(5, 3).requires_grad_()
    ops.embedding(minidl.zeros(0, 4, dtype="int64"), table).sum().backward()
    kernel = minidl.ones(2, 3, 3, 3).requires_grad_()
    ops.conv2d(minidl.zeros(0, 3, 4, 4), kernel).sum().backward()
    for parameter in (weight, bias, table, kernel):
        assert parameter.grad.shape == parameter.shape
        assert not parameter.grad.numpy().any()
