"""Attention round a ring is attention to the whole sequence, and every rank has as much of it to do."""

import math

import numpy as np
import pytest

import minidl
from minidl import ops
from minidl.kernels import meta
from minidl.parallel import Mesh, launch
from minidl.parallel.ring_attention import ring_attention
from minidl.parallel.sequence import part, positions

pytestmark = pytest.mark.usefixtures("warm_workers")

BATCH, SEQUENCE = 2, 24  # divisible by two chunks of 1, 2, 3 and 4 ranks
CASES = {  # is_causal, heads, kv_heads, width, values
    "causal": (True, 3, 3, 5, 5),
    "not causal": (False, 3, 3, 5, 5),
    "causal, grouped queries": (True, 4, 2, 5, 3),
    "not causal, grouped queries": (False, 4, 1, 5, 3),
}


def inputs(case, dtype="float64"):
    """q, k, v and the gradient of the result, of the whole sequence: (batch, sequence, heads, width)."""
    _, heads, kv_heads, width, values = CASES[case]
    generator = np.random.default_rng(0)
    sizes = (heads, width), (kv_heads, width), (kv_heads, values), (heads, values)
    return [generator.standard_normal((BATCH, SEQUENCE, *size)).astype(dtype) for size in sizes]


def attended(attention, q, k, v, grad):
    """The result and the gradients of q, k and v, all (batch, sequence, heads, width)."""
    leaves = [minidl.tensor(x, x.dtype, requires_grad=True) for x in (q, k, v)]
    out = attention(*(x.transpose(1, 2) for x in leaves)).transpose(1, 2)
    out.backward(minidl.tensor(grad, grad.dtype))
    return [out.detach().numpy(), *(x.grad.numpy() for x in leaves)]


def whole(case):
    is_causal, heads, kv_heads, *_ = CASES[case]

    def attention(q, k, v):
        return ops.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=heads != kv_heads)

    return attended(attention, *inputs(case))


def parts(group, dtype, cases=tuple(CASES)):
    """For each case this rank's part of what `whole` gives."""
    found = {}
    for case in cases:
        own = [part(x, 1, group.rank, group.size) for x in inputs(case, dtype)]
        found[case] = attended(lambda *qkv, case=case: ring_attention(*qkv, group, CASES[case][0]), *own)
    return found


@pytest.mark.parametrize(
    "ranks, dtype", [(1, "float64"), (2, "float64"), (2, "float32"), (3, "float64"), (4, "float64")]
)
def test_output_and_gradients_are_those_of_the_whole_sequence(ranks, dtype):
    found = launch(parts, ranks, args=(dtype,))
    tolerance = 1e-11 if dtype == "float64" else 2e-5
    for case in CASES:
        for which, expected in enumerate(whole(case)):
            for rank in range(ranks):
                ours = found[rank][case][which]
                assert ours.dtype == dtype
                wanted = expected[:, positions(SEQUENCE, rank, ranks)]
                np.testing.assert_allclose(ours, wanted, rtol=tolerance, atol=tolerance, err_msg=f"{case}: {which}")


def test_output_and_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    *qkv, grad = (torch.tensor(x.swapaxes(1, 2).copy()) for x in inputs("causal"))
    leaves = [x.requires_grad_() for x in qkv]
    out = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True)
    out.backward(grad)
    expected = [x.detach().numpy().swapaxes(1, 2) for x in (out, *(leaf.grad for leaf in leaves))]
    for rank, found in enumerate(launch(parts, 2, args=("float64", ("causal",)))):
        for ours, theirs in zip(found["causal"], expected, strict=True):
            np.testing.assert_allclose(ours, theirs[:, positions(SEQUENCE, rank, 2)], rtol=1e-10, atol=1e-12)


def long_keys(group):
    """Few queries, and blocks of 4 MiB."""
    generator = np.random.default_rng(0)
    q, k, v = (
        generator.standard_normal((1, 1, n, 32), np.float32) for n in (2, 16384 * group.size, 16384 * group.size)
    )
    own = [minidl.tensor(part(x, 2, group.rank, group.size), x.dtype, requires_grad=True) for x in (k, v)]
    out = ring_attention(minidl.tensor(q, q.dtype), *own, group)
    out.sum().backward()
    expected = ops.scaled_dot_product_attention(*(minidl.tensor(x, x.dtype) for x in (q, k, v)))
    np.testing.assert_allclose(out.detach().numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    return own[1].grad.numpy().sum()


def test_large_blocks_that_all_ranks_send_before_they_receive_do_not_block_them():
    assert sum(launch(long_keys, 2, timeout=60)) == pytest.approx(2 * 2 * 32, rel=1e-4)  # weights of a query add to 1


def test_scores_of_any_size_do_not_overflow():
    def work(group):
        q, k = minidl.full((1, 1, 2, 1), 1e3), minidl.full((1, 1, 2, 1), 1e3 * (group.rank - 0.5))
        return ring_attention(q, k, minidl.full((1, 1, 2, 1), float(group.rank)), group).numpy()

    for found in launch(work, 2):  # the keys of rank 1 have all the weight
        np.testing.assert_array_equal(found, np.ones((1, 1, 2, 1)))


class Mirror:
    """Two ranks with the same keys and values, of which one is run: what it sends is what it receives."""

    rank, size = 0, 2

    def __init__(self, kernels):
        self.kernels = kernels

    def send(self, x, dst, async_op):
        self.sent = self.kernels.copy(x)
        return Arrived(None)

    def recv(self, x, src, async_op):
        self.kernels.assign(x, self.sent)
        return Arrived(x)


class Arrived:
    def __init__(self, x):
        self.x = x

    def wait(self):
        return self.x


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_kernels_of_a_gpu_give_what_those_of_the_cpu_give(is_causal):
    generator, found = np.random.default_rng(0), []
    q, k, v, grad = (generator.standard_normal((1, heads, 4, n)) for heads, n in ((4, 3), (2, 3), (2, 5), (4, 5)))
    for device in ("cpu", "cuda"):
        leaves = [minidl.tensor(x, x.dtype, device=device, requires_grad=True) for x in (q, k, v)]
        out = ring_attention(*leaves, Mirror(leaves[0].kernels), is_causal)
        out.backward(minidl.tensor(grad, grad.dtype, device=device))
        found.append([x.detach().to("cpu").numpy() for x in (out, *(leaf.grad for leaf in leaves))])
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=1e-13)


def on_meta(ranks, rank, is_causal=True, heads=4, kv_heads=2, sequence=64):
    """Forward's and backward's calls, and what forward keeps, in bytes."""
    group = Mesh({"context": ranks}, rank).group("context")
    sizes = (heads, 8), (kv_heads, 8), (kv_heads, 6)
    q, k, v = (minidl.Tensor(meta.MetaArray((2, h, sequence // ranks, n), "float32"), True) for h, n in sizes)
    with meta.record() as forward:
        out = ring_attention(q, k, v, group, is_causal)
    kept = {x.storage: x.storage.nbytes for x in vars(out.op).values() if isinstance(x, meta.MetaArray)}
    with meta.record() as backward:
        out.sum().backward()
    assert [x.grad.shape for x in (q, k, v)] == [x.shape for x in (q, k, v)]
    return forward, backward, sum(kept.values())


def attentions(calls):
    return [call for call in calls if call.name in ("attention", "attention_grad")]


def pairs(places):
    """The (query, key) of a causal sequence that are computed for the queries at `places`."""
    return int((places + 1).sum())


@pytest.mark.parametrize("is_causal", [True, False])
def test_every_rank_has_as_many_products_and_as_many_in_every_step_after_its_own_block(is_causal):
    whole, multiplications = 16 * 16, set()
    for rank in range(4):
        for calls in map(attentions, on_meta(4, rank, is_causal)[:2]):
            first, *others = (call.shapes[0][1:3] for call in calls)  # queries, keys
            assert first == (16, 16)
            assert [queries * keys for queries, keys in others] == [whole // 2 if is_causal else whole] * 3
            multiplications.add((calls[0].name, sum(math.prod(call.shapes[0]) for call in calls)))
    assert len(multiplications) == 2  # one number forward, one backward


def test_two_chunks_balance_a_causal_sequence_and_contiguous_parts_would_not():
    zigzag = [pairs(positions(64, rank, 4)) for rank in range(4)]
    contiguous = [pairs(places) for places in np.split(np.arange(64), 4)]
    assert set(zigzag) == {pairs(np.arange(64)) // 4}
    assert max(contiguous) > 1.7 * np.mean(contiguous)


def test_a_step_sends_one_message_and_of_grouped_queries_only_the_keys_heads():
    forward, backward, _ = on_meta(4, 1)
    nbytes = 2 * 2 * 16 * (8 + 6) * 4  # batch, kv_heads, keys, width and values, float32
    for name in ("send", "recv"):
        there, back = (
            [call.nbytes for call in calls if call.name == name and call.phase == "start"]
            for calls in (forward, backward)
        )
        assert there == [nbytes] * 3
        assert back == [nbytes] * (3 + 4)  # the keys and values again, and their gradients all the way round


def test_what_is_kept_for_backward_is_a_ranks_own_part_however_long_the_ring():
    q, k, v, log_sum_exp = 4 * 8, 2 * 8, 2 * 6, 4
    y = 4 * 6
    for ranks in (2, 4):
        _, _, kept = on_meta(ranks, 0, sequence=16 * ranks)
        assert kept == 4 * 2 * 16 * (q + k + v + y + log_sum_exp)


def test_one_rank_attends_as_ever_and_sends_nothing():
    forward, _, _ = on_meta(1, 0)
    assert not any(call.name in ("send", "recv", "attention") for call in forward)
    q = minidl.tensor(np.random.default_rng(0).standard_normal((1, 2, 7, 3)))
    found = ring_attention(q, q, q, None, is_causal=True, scale=0.3)
    expected = ops.scaled_dot_product_attention(q, q, q, is_causal=True, scale=0.3)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_a_second_derivative_is_refused():
    group = Mesh({"context": 2}).group("context")
    q = minidl.Tensor(meta.MetaArray((1, 1, 4, 2), "float32"), True)
    with pytest.raises(NotImplementedError, match="differentiated twice"):
        minidl.autograd.grad(ring_attention(q, q, q, group).sum(), [q], create_graph=True)


@pytest.mark.parametrize(
    "shapes, is_causal, sentence",
    [
        (
            ((2, 3, 4), (2, 3, 4), (2, 3, 4)),
            False,
            r"needs \(batch, heads, sequence, width\) of each, not query \(2, 3",
        ),
        (((2, 2, 4, 3), (2, 2, 4, 5), (2, 2, 4, 3)), False, "keys as wide as queries"),
        (((2, 2, 4, 3), (2, 2, 4, 3), (2, 2, 6, 3)), False, "as many heads and positions as keys"),
        (((2, 3, 4, 3), (2, 2, 4, 3), (2, 2, 4, 3)), False, "multiple of key's"),
        (((2, 2, 3, 3), (2, 2, 3, 3), (2, 2, 3, 3)), True, "not 3 queries and 3 keys"),
        (((2, 2, 2, 3), (2, 2, 4, 3), (2, 2, 4, 3)), True, "not 2 queries and 4 keys"),
        (((2, 2, 2, 3), (2, 2, 0, 3), (2, 2, 0, 3)), False, "at least one key"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_sentence(shapes, is_causal, sentence):
    group = Mesh({"context": 2}).group("context")
    with pytest.raises(ValueError, match=sentence):
        ring_attention(*(minidl.zeros(shape, device="meta") for shape in shapes), group, is_causal)


def test_the_parts_of_all_ranks_are_the_sequence_and_each_rises():
    assert positions(16, 1, 4).tolist() == [2, 3, 12, 13]
    for size in (1, 2, 3, 4):
        found = [positions(24, rank, size) for rank in range(size)]
        assert np.sort(np.concatenate(found)).tolist() == list(range(24))
        assert all((np.diff(places) > 0).all() and places.dtype == np.int64 for places in found)
    assert positions(7, 0, 1).tolist() == list(range(7))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_a_part_of_an_array_is_a_contiguous_copy_of_those_positions(dim):
    x = np.arange(8 * 8 * 8).reshape(8, 8, 8).transpose(2, 1, 0)
    found = part(x, dim, 1, 2)
    np.testing.assert_array_equal(found, x.take(positions(8, 1, 2), dim))
    assert found.flags.c_contiguous
    shape = part(meta.MetaArray(x.shape, x.dtype), dim, 1, 2)
    assert (shape.shape, shape.dtype, shape.contiguous) == (found.shape, found.dtype, True)
    assert part(x, dim, 0, 1) is x


def test_a_sequence_that_does_not_divide_is_refused():
    for cut in (lambda: positions(10, 0, 4), lambda: part(np.zeros((3, 10)), 1, 0, 4)):
        with pytest.raises(ValueError, match="a sequence of 10 is not divisible by 2 × context=4"):
            cut()
