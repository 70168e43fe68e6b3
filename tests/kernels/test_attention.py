"""Attention in tiles is attention: on the CPU against the weights written out, on the GPU against the CPU."""

import numpy as np
import pytest

import minidl
from minidl import ops
from minidl.kernels import cpu, cuda, meta
from minidl.kernels.cuda import attention_tiles, emulator

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
SHAPES = [  # of q, k, v
    ((2, 5, 3), (2, 5, 3), (2, 5, 3)),
    ((2, 2, 9, 4), (2, 2, 17, 4), (2, 2, 17, 6)),
    ((1, 3, 3, 9), (2, 1, 5, 9), (2, 3, 5, 2)),
    ((8, 20), (8, 20), (8, 20)),
    ((130, 2), (140, 2), (140, 1)),
    ((2, 3, 4), (2, 0, 4), (2, 0, 4)),
    ((0, 3, 4), (0, 3, 4), (0, 3, 4)),
    ((2, 0, 4), (2, 3, 4), (2, 3, 4)),
]


def randoms(dtype, *shapes):
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


SEEN = pytest.mark.parametrize("is_causal, window", [(False, None), (True, None), (True, 1), (True, 4), (True, 80)])


def written_out(q, k, v, scale, is_causal, window):
    """softmax(scale Q K^T) V with all its weights."""
    return cpu.attention_weights(q @ np.swapaxes(k, -1, -2), scale, is_causal, window) @ v


@pytest.mark.parametrize("shapes", SHAPES)
@SEEN
def test_tiles_of_keys_give_what_all_weights_at_once_give(shapes, is_causal, window):
    q, k, v = randoms("float64", *shapes)
    out, log_sum_exp = cpu.attention(q, k, v, 0.7, is_causal, window)
    expected = written_out(q, k, v, 0.7, is_causal, window)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    assert log_sum_exp.shape == out.shape[:-1]
    (grad,) = randoms("float64", out.shape)
    grads = cpu.attention_grad(grad, q, k, v, out, log_sum_exp, 0.7, is_causal, window)
    heads = out.shape[:-2]
    for position, found in enumerate(grads):
        given = [np.broadcast_to(x, (*heads, *x.shape[-2:])).copy() for x in (q, k, v)]
        assert found.shape == given[position].shape
        (direction,) = randoms("float64", found.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [x + step * direction if i == position else x for i, x in enumerate(given)]
            ends.append((written_out(*moved, 0.7, is_causal, window) * grad).sum())
        np.testing.assert_allclose((found * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype, order", [("float32", "forward"), ("float64", "reversed")])
@pytest.mark.parametrize("shapes", [s for s in SHAPES if s[0][-2] < 100])
@SEEN
def test_the_gpu_gives_what_the_cpu_gives(shapes, is_causal, window, dtype, order, monkeypatch):
    monkeypatch.setattr(emulator, "order", order)
    q, k, v = randoms(dtype, *shapes)
    out, log_sum_exp = cpu.attention(q, k, v, 0.7, is_causal, window)
    (grad,) = randoms(dtype, out.shape)
    on_gpu = [cuda.array(x, x.dtype) for x in (q, k, v)]
    found = cuda.attention(*on_gpu, 0.7, is_causal, window)
    grads = cuda.attention_grad(cuda.array(grad, dtype), *on_gpu, *found, 0.7, is_causal, window)
    expected = cpu.attention_grad(grad, q, k, v, out, log_sum_exp, 0.7, is_causal, window)
    for result, right in zip((*found, *grads), (out, log_sum_exp, *expected), strict=True):
        values = cuda.to_numpy(result)
        assert (values.shape, values.dtype) == (right.shape, right.dtype)
        np.testing.assert_allclose(values, right, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_queries_keys_and_values_side_by_side_in_memory_are_read_where_they_lie():
    """The result has the order of memory of the queries, so that joining heads moves nothing."""
    batch, sequence, heads, width = 2, 9, 2, 3
    (qkv,) = randoms("float64", (batch, sequence, 3, heads, width))
    parts = [qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3)]
    on_gpu = cuda.permute(cuda.array(qkv, qkv.dtype), (2, 0, 3, 1, 4))
    views = [on_gpu.view(on_gpu.shape[1:], on_gpu.strides[1:], i * on_gpu.strides[0]) for i in range(3)]
    before = emulator.launches.copy()
    out, log_sum_exp = cuda.attention(*views, 0.5, True)
    joined = cuda.reshape(cuda.permute(out, (0, 2, 1, 3)), (batch, sequence, heads * width))
    assert emulator.launches - before == {"attention_tiles": 1}
    expected = cpu.attention(*parts, 0.5, True)
    np.testing.assert_allclose(
        cuda.to_numpy(joined), expected[0].transpose(0, 2, 1, 3).reshape(joined.shape), atol=1e-12
    )
    grads = cuda.attention_grad(out, *views, out, log_sum_exp, 0.5, True)
    for found, right in zip(grads, cpu.attention_grad(expected[0], *parts, *expected, 0.5, True), strict=True):
        np.testing.assert_allclose(cuda.to_numpy(found), right, atol=1e-12)


@pytest.mark.parametrize("kernels", [cpu, cuda])
@pytest.mark.parametrize("rows", [slice(2), slice(2, None), slice(1, None, 2)])
def test_gradients_of_some_queries_are_those_of_their_own_attention(kernels, rows):
    """What is known of each query, out and log-sum-exp, is read where it lies among those of all queries."""
    q, k, v, grad = randoms("float64", (2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 3), (2, 3, 5, 3))
    found = cpu.attention(q, k, v, 0.7, False)
    expected = cpu.attention_grad(
        grad[..., rows, :], q[..., rows, :], k, v, *cpu.attention(q[..., rows, :], k, v, 0.7, False), 0.7, False
    )
    q, k, v, grad, out, log_sum_exp = (kernels.array(x, x.dtype) for x in (q, k, v, grad, *found))
    some = [kernels.index(x, (..., rows, slice(None))) for x in (grad, q, out)]
    log_sum_exp = kernels.index(log_sum_exp, (..., rows))
    grads = kernels.attention_grad(*some[:2], k, v, some[2], log_sum_exp, 0.7, False)
    for ours, right in zip(grads, expected, strict=True):
        np.testing.assert_allclose(kernels.to_numpy(ours), right, atol=1e-12)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("kernels", [cpu, cuda])
def test_scores_that_are_minus_infinity_make_a_query_that_sees_nothing(kernels):
    q, k, v = (kernels.array(x, np.float64) for x in ([[1.0]], [[-np.inf]], [[1.0]]))
    out, log_sum_exp = kernels.attention(q, k, v, 1.0, False)
    assert (kernels.to_numpy(out), kernels.to_numpy(log_sum_exp)) == (0, -np.inf)
    _, _, grad_v = kernels.attention_grad(v, q, k, v, out, log_sum_exp, 1.0, False)
    assert kernels.to_numpy(grad_v) == 0


@pytest.mark.slow
def test_the_tiles_of_a_real_gpu_give_the_same(monkeypatch):
    monkeypatch.setattr(attention_tiles, "EMULATED", False)
    q, k, v, grad = randoms("float32", (70, 9), (40, 9), (40, 12), (70, 12))
    on_gpu = [cuda.array(x, x.dtype) for x in (q, k, v)]
    found = cuda.attention(*on_gpu, 0.5, True)
    grads = cuda.attention_grad(cuda.array(grad, grad.dtype), *on_gpu, *found, 0.5, True)
    expected = cpu.attention(q, k, v, 0.5, True)
    right = (*expected, *cpu.attention_grad(grad, q, k, v, *expected, 0.5, True))
    for result, values in zip((*found, *grads), right, strict=True):
        np.testing.assert_allclose(cuda.to_numpy(result), values, rtol=1e-5, atol=1e-5)


def test_attention_in_tiles_costs_its_products_and_moves_no_scores():
    q, k, v = (meta.array(np.zeros(shape), np.float32) for shape in ((2, 3, 50, 8), (2, 3, 60, 8), (2, 3, 60, 4)))
    with meta.record() as calls:
        out, log_sum_exp = meta.attention(q, k, v, 1.0, False)
        meta.attention_grad(out, q, k, v, out, log_sum_exp, 1.0, False)
    forward, backward = calls[-2:]
    scores = 6 * 50 * 60
    assert forward.flops == 2 * scores * 12 + 15 * scores
    assert forward.bytes_written == 4 * 6 * 50 * (4 + 1)
    assert backward.bytes_read == 4 * 6 * (50 * (8 + 4 + 4 + 1) + 60 * (8 + 4))


@pytest.mark.parametrize("queries, keys", [(50, 50), (50, 20), (20, 50)])
@pytest.mark.parametrize("window", [1, 7, 60])
def test_in_tiles_a_window_costs_the_keys_that_are_seen(queries, keys, window):
    seen = np.triu(np.tri(queries, keys, dtype=int), 1 - window).sum()
    q, k = (meta.array(np.zeros((3, n, 8)), np.float32) for n in (queries, keys))
    with meta.record() as calls:
        out, log_sum_exp = meta.attention(q, k, k, 1.0, True, window)
        meta.attention_grad(out, q, k, k, out, log_sum_exp, 1.0, True, window)
    counted = 3 * queries * np.ceil(seen / queries)
    assert [call.flops for call in calls[-2:]] == [counted * (2 * 16 + 15), counted * (2 * 56 + 30) + 2 * out.size]


PLAIN = (lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, is_causal=True), [(2, 3, 2)] * 3)
PACKED = (lambda qkv: ops.packed_attention(qkv, is_causal=True), [(2, 3, 3, 2, 2)])


@pytest.mark.parametrize("function, shapes", [PLAIN, PACKED], ids=["plain", "packed"])
def test_second_derivatives_go_through_tiles(function, shapes):
    found = {}
    for device in ("cpu", "cuda"):
        inputs = [minidl.tensor(x).to(device).requires_grad_() for x in randoms("float64", *shapes)]
        emulator.launches.clear()
        out = function(*inputs)
        assert device == "cpu" or emulator.launches == {"attention_tiles": 1}
        grads = minidl.autograd.grad((out * out).sum(), inputs, create_graph=True)
        second = minidl.autograd.grad(sum((g * g).sum() for g in grads), inputs)
        found[device] = [x.to("cpu").numpy() for x in (out.detach(), *(g.detach() for g in grads), *second)]
    for ours, expected in zip(found["cuda"], found["cpu"], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


def test_a_mask_and_dropout_are_attended_with_all_weights_at_once():
    q = minidl.ones((1, 4, 2), device="cuda")
    before = emulator.launches["attention_tiles"]
    ops.scaled_dot_product_attention(q, q, q, minidl.zeros((4, 4), device="cuda"))
    ops.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
    assert emulator.launches["attention_tiles"] == before
