"""A mixture of experts gives what a loop over the tokens gives, and on several ranks what it gives on one."""

import math

import numpy as np
import pytest

import minidl
from minidl import nn, ops
from minidl.kernels import meta
from minidl.kernels.meta import KernelCall
from minidl.nn.cut import join
from minidl.parallel import Mesh, launch
from minidl.parallel.chain_profile import build_on_meta
from minidl.parallel.experts import MixtureOfExperts
from minidl.parallel.handle import CollectiveCall
from tests.models.oracle import assert_equals_torch

pytestmark = pytest.mark.usefixtures("warm_workers")

BATCH, SEQUENCE, HIDDEN, INNER, EXPERTS = 4, 6, 5, 8, 4
RNG = np.random.default_rng(0)
X, TARGET = RNG.standard_normal((2, BATCH, SEQUENCE, HIDDEN))


# Against a loop over the tokens


class Both(nn.Module):
    """The output and the loss of a mixture in one tensor (batch, sequence * hidden + 1)."""

    def __init__(self, mixture):
        self.mixture = mixture

    def forward(self, x):
        y, balance = self.mixture(x)
        return ops.cat([y.flatten(1), balance.unsqueeze(1)], 1)


def by_token(torch, top_k, capacity, gated, bias):
    """The mixture as a loop over samples, choices and tokens."""
    F = torch.nn.functional

    def expert(x, e, p):
        h = x @ p["mixture.up"][e] + (p["mixture.up_bias"][e, 0] if bias else 0)
        if gated:
            gate, up = h.chunk(2)
            h = F.silu(gate) * up
        else:
            h = F.gelu(h, approximate="tanh")
        return h @ p["mixture.down"][e] + (p["mixture.down_bias"][e, 0] if bias else 0)

    def mixture(x, p):
        results = []
        for sample in x:
            probabilities = F.linear(sample, p["mixture.router.weight"]).softmax(-1)
            gates, choices = probabilities.topk(top_k)
            y, taken, wanted = [0 * token for token in sample], [0] * EXPERTS, [0] * EXPERTS
            for k in range(top_k):  # first choices go before second ones
                for t, token in enumerate(sample):
                    e = int(choices[t, k])
                    wanted[e] += 1
                    if taken[e] < capacity:
                        taken[e] += 1
                        gate = gates[t, k] / (gates[t].sum() if top_k > 1 else 1)
                        y[t] = y[t] + gate * expert(token, e, p)
            share = torch.tensor(wanted).double() / (top_k * SEQUENCE)
            balance = EXPERTS * (share * probabilities.mean(0)).sum()
            results.append(torch.cat([torch.stack(y).flatten(), balance[None]]))
        return torch.stack(results)

    return mixture


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize(("factor", "drops"), [(0.5, True), (4.0, False)])
@pytest.mark.parametrize(("feed_forward", "bias"), [("gelu", True), ("swiglu", False), ("swiglu", True)])
def test_a_mixture_equals_a_loop_over_the_tokens_with_and_without_dropping(top_k, factor, drops, feed_forward, bias):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    layer = MixtureOfExperts(HIDDEN, INNER, EXPERTS, top_k, factor, bias=bias, feed_forward=feed_forward)
    capacity = {(1, True): 1, (2, True): 2, (4, True): 3}.get((top_k, drops), SEQUENCE)
    assert layer.capacity(SEQUENCE) == capacity
    assert_equals_torch(torch, Both(layer), by_token(torch, top_k, capacity, feed_forward == "swiglu", bias), X)
    dropped, made = layer.dropped.numpy()
    assert made == BATCH * SEQUENCE * top_k and (dropped > 0) == drops


def test_what_a_sample_gets_does_not_depend_on_the_batch_it_is_in():
    layer = MixtureOfExperts(HIDDEN, INNER, EXPERTS, capacity_factor=0.5)
    layer.materialize(0, dtype=np.float64)
    y, balance = layer(minidl.tensor(X))
    for i in range(BATCH):
        alone, own = layer(minidl.tensor(X[i : i + 1]))
        np.testing.assert_allclose(alone.numpy()[0], y.numpy()[i], rtol=1e-12)
        np.testing.assert_allclose(own.numpy(), balance.numpy()[i : i + 1], rtol=1e-12)
    assert layer(minidl.tensor(X[:0]))[0].shape == (0, SEQUENCE, HIDDEN)


# Slots, and the loss


def all_to_the_first(top_k=1, **options):
    """A mixture whose router sends tokens of ones to the first expert, then to the second, ..."""
    layer = MixtureOfExperts(HIDDEN, INNER, EXPERTS, top_k, **options)
    layer.router.weight.data[...] = -10 * np.arange(EXPERTS)[:, None]
    return layer


def test_the_first_tokens_have_the_slots_and_what_is_dropped_is_nought_and_counted_in_training():
    layer = all_to_the_first(capacity_factor=1.0)  # 2 slots for 6 tokens
    ones = minidl.ones(3, SEQUENCE, HIDDEN)
    y, _ = layer(ones)
    assert (y.numpy()[:, :2] != 0).all() and (y.numpy()[:, 2:] == 0).all()
    assert layer.dropped.numpy().tolist() == [3 * 4, 3 * 6]
    layer(ones[:1])
    layer.eval()(ones)
    assert layer.dropped.numpy().tolist() == [4 * 4, 4 * 6]
    assert layer.dropped.dtype == np.int64 and "dropped" in layer.state_dict()


def test_first_choices_have_slots_before_the_second_choices_of_earlier_tokens():
    layer = MixtureOfExperts(2, INNER, 3, top_k=2, capacity_factor=0.75)
    assert layer.capacity(2) == 1
    layer.router.weight.data[...] = [[2, 0], [1, 2], [0, 1]]
    first = layer(minidl.tensor([[[1.0, 0.0], [0.0, 1.0]]]))[0].numpy()  # experts 0 and 1, then 1 and 2
    alone = layer(minidl.tensor([[[0.0, 1.0]]]))[0].numpy()
    np.testing.assert_allclose(first[0, 1], alone[0, 0], rtol=1e-5)  # has both of its choices
    assert layer.dropped.numpy().tolist() == [1, 6]


def test_no_expert_has_more_slots_than_there_are_tokens():
    assert MixtureOfExperts(HIDDEN, INNER, EXPERTS, 2, 100.0).capacity(SEQUENCE) == SEQUENCE


def test_the_loss_is_one_where_all_experts_are_as_probable_and_their_number_where_one_has_all():
    layer = all_to_the_first()
    assert layer(minidl.ones(2, SEQUENCE, HIDDEN))[1].numpy() == pytest.approx([EXPERTS, EXPERTS])
    layer.router.weight.data[...] = 0
    assert layer(minidl.tensor(X.astype(np.float32)))[1].numpy() == pytest.approx(np.ones(BATCH))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(experts=6, expert_group=Mesh({"expert": 4}).group("expert")), "experts=6 is not divisible by expert=4"),
        (dict(inner=10, tensor_group=Mesh({"tensor": 4}).group("tensor")), "inner=10 is not divisible by tensor=4"),
        (dict(top_k=0), "top_k=0 is not between 1 and experts=4"),
        (dict(top_k=5), "top_k=5 is not between 1 and experts=4"),
        (dict(capacity_factor=0.0), "capacity_factor=0.0 is not a positive number"),
        (dict(feed_forward="relu"), "feed_forward='relu', choose one of gelu, swiglu"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixtureOfExperts(**dict(hidden=HIDDEN, inner=INNER, experts=EXPERTS) | options)


# On several ranks


def outcome(samples, expert_group, tensor_group, feed_forward="gelu"):
    """Output, loss, input gradient, what was dropped; this rank's parts of the parameters and of their gradients."""
    with minidl.device("meta"):
        layer = MixtureOfExperts(HIDDEN, INNER, EXPERTS, 2, 0.75, expert_group, tensor_group, feed_forward=feed_forward)
    layer.materialize(7, "layer", np.float64)
    x = minidl.tensor(X[samples], requires_grad=True)
    y, balance = layer(x)
    ((y * minidl.tensor(TARGET[samples])).sum() + balance.sum()).backward()
    parts = {name: (p.numpy(), p.grad.numpy(), p.cut) for name, p in layer.named_parameters()}
    return y.numpy(), balance.numpy(), x.grad.numpy(), layer.dropped.numpy(), parts


def outcome_of_rank(group, tensor, feed_forward):
    expert_group = group.split(group.rank % tensor, group.rank)
    tensor_group = group.split(group.rank // tensor, group.rank)
    own = BATCH // expert_group.size
    samples = slice(expert_group.rank * own, (expert_group.rank + 1) * own)
    return outcome(samples, expert_group, tensor_group, feed_forward)


@pytest.mark.parametrize("feed_forward", ["gelu", "swiglu"])
@pytest.mark.parametrize(("experts", "tensor"), [(2, 1), (4, 1), (1, 2), (2, 2)])
def test_ranks_with_samples_of_their_own_give_what_one_rank_gives_for_all(experts, tensor, feed_forward):
    found = launch(outcome_of_rank, experts * tensor, args=(tensor, feed_forward))
    *expected, whole = outcome(slice(None), None, None, feed_forward)
    for part in range(tensor):
        *results, _ = zip(*found[part::tensor], strict=True)
        dropped = results.pop()
        for ours, theirs in zip(map(np.concatenate, results), expected, strict=False):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)
        assert np.sum(dropped, 0).tolist() == expected[-1].tolist() and expected[-1][0] > 0
    for name, (value, gradient, _) in whole.items():
        ranks = [rank[-1][name] for rank in found]
        if name == "router.weight":  # whole on every rank, its gradient that of the rank's own samples
            ours = sum(grad for _, grad, _ in ranks[::tensor])
            assert all((rank[0] == value).all() for rank in ranks)
        else:  # the gradient of an expert's rank is that of all samples
            np.testing.assert_array_equal(join((name, p, cut) for p, _, cut in ranks)[name], value)
            ours = join((name, grad, cut) for _, grad, cut in ranks)[name]
        np.testing.assert_allclose(ours, gradient, rtol=1e-10, atol=1e-14, err_msg=name)


def test_a_group_of_one_rank_communicates_nothing():
    mesh = Mesh({})
    layer = MixtureOfExperts(
        HIDDEN, INNER, EXPERTS, expert_group=mesh.group("expert"), tensor_group=mesh.group("tensor")
    )
    assert layer.expert_group is layer.tensor_group is None


def calls_on_meta(**axes):
    """The calls of forward, and of backward, of one rank, with the whole batch's samples or its share of them."""
    mesh = Mesh(axes)

    def build(mesh):
        groups = dict(expert_group=mesh.group("expert"), tensor_group=mesh.group("tensor"))
        return MixtureOfExperts(HIDDEN, INNER, EXPERTS, **groups)

    layer = build_on_meta(build, mesh, "float64")
    x = minidl.Tensor(meta.MetaArray((BATCH // mesh.size("expert"), SEQUENCE, HIDDEN), "float64"), requires_grad=True)
    with meta.record() as forward:
        y, balance = layer(x)
    with meta.record() as backward:
        (y.sum() + balance.sum()).backward()
    return forward, backward


def collectives(calls):
    return [call for call in calls if isinstance(call, CollectiveCall)]


def test_on_meta_the_slots_go_to_the_experts_and_back_once_each_way():
    slots = EXPERTS * (BATCH // 2) * 4 * HIDDEN * 8  # ceil(1.25 * 2 * 6 / 4) = 4 slots of a sample in each expert
    to_and_fro = [CollectiveCall("all_to_all", ("expert",), 2, slots)] * 2
    counts = CollectiveCall("all_gather", ("expert",), 2, 2 * 8)  # how many slots each rank has to fill
    assert list(map(collectives, calls_on_meta(expert=2))) == [[counts, *to_and_fro], to_and_fro]


def test_on_meta_an_all_to_all_makes_an_array_of_its_own_as_it_does_elsewhere():
    x = meta.MetaArray((4, 3), "float64")
    y = Mesh({"expert": 2}).group("expert").all_to_all(x)
    assert y.shape == x.shape and y.storage is not x.storage


def test_on_meta_tensor_ranks_reduce_the_slots_forward_and_the_tokens_backward():
    (forward,), (backward,) = map(collectives, calls_on_meta(tensor=2))
    assert forward == CollectiveCall("all_reduce", ("tensor",), 2, EXPERTS * BATCH * 4 * HIDDEN * 8)
    assert backward == CollectiveCall("all_reduce", ("tensor",), 2, BATCH * SEQUENCE * HIDDEN * 8)


@pytest.mark.parametrize("axes", [dict(expert=2), dict(expert=4), dict(tensor=2), dict(expert=2, tensor=2)])
def test_on_meta_each_rank_does_its_share_of_the_experts_products(axes):
    def of_experts(calls):
        products = (call for call in calls if isinstance(call, KernelCall) and call.kind == "product")
        return sum(call.flops for call in products if BATCH * 4 in call.shapes[0])  # those of an expert's slots

    ranks = math.prod(axes.values())
    for whole, part in zip(calls_on_meta(), calls_on_meta(**axes), strict=True):
        assert of_experts(part) * ranks == of_experts(whole) > 0


def test_no_kernel_takes_memory_of_the_tokens_times_the_slots():
    for calls in calls_on_meta():
        largest = max(math.prod(shape) for call in calls if call.kind != "product" for shape in call.shapes)
        assert largest <= EXPERTS * BATCH * 4 * max(INNER, HIDDEN)


def test_the_emulated_gpu_gives_what_the_cpu_gives():
    def run(device):
        with minidl.device("meta"):
            layer = MixtureOfExperts(HIDDEN, INNER, EXPERTS, 2, 0.75)
        layer.materialize(7, "layer")
        layer.to(device)
        x = minidl.tensor(X, dtype="float32", device=device, requires_grad=True)
        y, balance = layer(x)
        ((y * minidl.tensor(TARGET, dtype="float32", device=device)).sum() + balance.sum()).backward()
        return [t.numpy() for t in (y, balance, x.grad, layer.dropped, *(p.grad for p in layer.parameters()))]

    for ours, theirs in zip(run("cuda"), run("cpu"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
