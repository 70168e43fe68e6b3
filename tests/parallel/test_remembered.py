"""What is known of blocks from one prediction to the next: their runs on meta, and nothing that anybody has changed."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from minidl import models, nn, optim
from minidl.grad_mode import is_grad_enabled
from minidl.kernels import interposed, meta
from minidl.kernels.meta import MetaArray
from minidl.models.feed_forward import FeedForward
from minidl.parallel import Plan, chain, chain_profile
from minidl.parallel.block_profile import flops
from minidl.parallel.prepare import prepare
from minidl.parallel.remembered import Remembered

SIZES = dict(layers=4, hidden=16, heads=2, vocabulary=32, sequence=8)


@pytest.fixture
def runs(monkeypatch):
    """The blocks that are run, from an empty memory on."""
    blocks, run = [], chain_profile.profile_block

    def counted(block, *arguments):
        blocks.append(type(block).__name__)
        return run(block, *arguments)

    monkeypatch.setattr(chain_profile, "profile_block", counted)
    monkeypatch.setattr(chain_profile, "KNOWN", Remembered(1024))
    monkeypatch.setattr(chain, "KNOWN", Remembered(256))
    return blocks


def gpt(mesh):
    return models.gpt(**SIZES, mesh=mesh)


def total(build=gpt, plan=Plan(), batch=8, **options):  # noqa: B008
    """The FLOPs of forward, backward and update of all blocks, and of the loss."""
    profile = prepare(build, plan, batch, **options).profile
    return sum(flops((*b.forward, *b.backward, *b.update)) for b in profile.blocks) + flops(profile.loss)


def test_blocks_of_another_plan_or_batch_are_not_run_again(runs):
    first = prepare(gpt, Plan(data=2, micro_batches=2), 16)
    kinds = ["GPTEmbedding", "GPTBlock", "GPTHead"]
    assert runs == kinds
    for plan, batch in [(Plan(data=4, micro_batches=4), 64), (Plan(pipeline=4), 4), (Plan(pipeline=2), 4)]:
        found = prepare(gpt, plan, batch)
        assert [a.forward is b.forward for a, b in zip(found.profile.blocks, first.profile.blocks, strict=True)]
    assert runs == kinds
    prepare(gpt, Plan(), 8)  # micro-batches of another size
    prepare(gpt, Plan(tensor=2), 4)  # split blocks
    prepare(gpt, Plan(recompute="selective"), 4)  # in which attention differs, so the ends are known
    assert runs == [*kinds, *kinds, *kinds, "GPTBlock"]


NAMED = models.builder("gpt-tiny", **SIZES)


def test_a_builder_by_name_is_asked_once_for_each_split_and_the_chain_run_once_for_each_micro_batch(runs, monkeypatch):
    built, build = [], chain.build_on_meta
    monkeypatch.setattr(
        chain, "build_on_meta", lambda *given, **options: built.append(given) or build(*given, **options)
    )
    first = prepare(NAMED, Plan(data=2, micro_batches=2), 16)
    plans = [(Plan(data=4, micro_batches=8), 128), (Plan(data=2, micro_batches=2, sharding="optimizer"), 16)]
    for plan, batch in plans:
        found = prepare(models.builder("gpt-tiny", **SIZES), plan, batch)
        assert found.profile is first.profile
        assert found.costs.layout is first.costs.layout
    assert len(built) == 1
    prepare(NAMED, Plan(data=2, tensor=2, micro_batches=2), 16)
    assert len(built) == 2
    assert prepare(NAMED, Plan(data=2, pipeline=2, micro_batches=2), 16).costs.layout != first.costs.layout
    assert prepare(NAMED, Plan(data=2, micro_batches=2), 32).profile is not first.profile
    assert prepare(NAMED, Plan(data=2, micro_batches=2), 16, optimizer=optim.LAMB).profile is not first.profile
    assert prepare(NAMED, Plan(data=2, micro_batches=2), 16, device="cuda").profile is not first.profile
    assert first.model is not prepare(NAMED, Plan(data=2, micro_batches=2), 16).model  # which a user may change


def test_a_users_optimizer_that_changes_parameters_changes_those_of_no_other_prediction():
    def frozen(parameters):
        parameters = list(parameters)
        for p in parameters:
            p.requires_grad = False
        return optim.SGD(parameters, lr=0.1)

    before = total(NAMED)
    prepare(NAMED, Plan(), 8, optimizer=frozen)
    assert total(NAMED) == before


def calls(build, plan, batch) -> list[int]:
    """How many there are in the backward of each block."""
    return [len(block.backward) for block in prepare(build, plan, batch).profile.blocks]


@pytest.mark.parametrize("where", ["gelu_grad", "layer_norm_grad", "split_heads"])
def test_a_prediction_that_was_broken_off_changes_no_other(runs, where):
    def break_off(frame, event, argument):  # as Ctrl-C would, where this function is called
        if event == "call" and frame.f_code.co_name == where:
            sys.setprofile(None)
            raise KeyboardInterrupt

    plan = Plan(tensor=2)
    before = calls(gpt, plan, 8)
    calls(NAMED, plan, 16)  # now the model is remembered
    with pytest.raises(KeyboardInterrupt):
        sys.setprofile(break_off)
        calls(NAMED, plan, 4)
    assert calls(NAMED, plan, 4) == before


@pytest.fixture
def often_switched():
    """Threads take turns a hundred times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 100)
    yield
    sys.setswitchinterval(interval)


def test_threads_predict_one_at_a_time(runs, often_switched):
    plans = [Plan(data=data, tensor=tensor) for data in (1, 2, 3) for tensor in (1, 2)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda plan: calls(NAMED, plan, 6 * plan.data), plans))
    assert found == [calls(gpt, plan, 6 * plan.data) for plan in plans] and is_grad_enabled()


def test_a_users_function_by_a_name_of_ours_is_asked_each_time(monkeypatch):
    def own(mesh=None):
        return models.mlp((8, 8 * mesh.size("data"), 2))

    monkeypatch.setitem(models.BUILDERS, "own", own)
    sizes = [prepare(models.builder("own"), Plan(data=data), 8).profile.parameter_bytes for data in (1, 2, 1)]
    assert sizes[0] == sizes[2] < sizes[1]


def test_what_is_refused_does_not_depend_on_what_was_asked_before():
    prepare(models.builder("gpt-tiny", **SIZES), Plan(), 8)
    with pytest.raises(TypeError):
        prepare(models.builder("gpt-tiny", **SIZES | {"layers": 4.0}), Plan(), 8)


@pytest.mark.parametrize("build", [lambda mesh: models.lenet(), models.builder("lenet")], ids=["function", "name"])
def test_an_initializer_or_an_update_that_somebody_replaces_makes_another_model_or_another_price(monkeypatch, build):
    def held():
        return sum(prepare(build, Plan(), 8).profile.parameter_bytes)

    before, bytes_before, update, linear = total(build), held(), optim.Adam.update, nn.Linear.__init__
    with monkeypatch.context() as patch:
        patch.setattr(optim.Adam, "update", lambda *given: (update(*given), update(*given))[1])
        assert total(build) > before
    with monkeypatch.context() as patch:
        patch.setattr(nn.Linear, "__init__", lambda self, *sizes, **options: linear(self, *sizes, bias=False))
        assert held() < bytes_before
    assert (total(build), held()) == (before, bytes_before)


@pytest.mark.parametrize("build", [gpt, NAMED], ids=["function", "name"])
def test_a_block_with_another_forward_has_another_price_and_the_old_one_again_afterwards(monkeypatch, build):
    before = total(build)
    with monkeypatch.context() as patch:
        patch.setattr(FeedForward, "forward", lambda self, x: x)
        assert total(build) < before
    assert total(build) == before


@pytest.mark.parametrize("build", [gpt, NAMED], ids=["function", "name"])
def test_a_kernel_that_somebody_replaces_is_priced_as_it_is(monkeypatch, build):
    cost = partial(total, build)
    before, gelu = cost(), meta.gelu
    with monkeypatch.context() as patch:
        patch.setattr(meta, "gelu", lambda x, approximate: gelu(gelu(x, approximate), approximate))
        assert cost() == before + SIZES["layers"] * 16 * 8 * SIZES["sequence"] * 4 * SIZES["hidden"]
    assert cost() == before
    with interposed(MetaArray, lambda name, kernel: (lambda x, approximate: x) if name == "gelu" else kernel):
        assert cost() < before
    assert cost() == before


def test_code_of_a_users_own_is_run_each_time_as_it_may_call_anything(runs):
    factor = 1

    class Own(nn.Module):
        def forward(self, x):
            for _ in range(factor):
                x = x * 2
            return x

    def build(mesh):
        return nn.Sequential(nn.Linear(4, 4), Own(), nn.Linear(4, 2))

    example = np.zeros((1, 4), "float32"), np.zeros(1, "int64")
    first = total(build, example=example)
    factor = 3
    assert total(build, example=example) == first + 2 * 2 * 8 * 4
    assert runs == ["Linear", "Own", "Linear", "Own"]


def test_a_block_with_a_hook_is_run_each_time(runs):
    def build(mesh):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        model[1].register_forward_hook(lambda module, inputs, out: out)
        return model

    for _ in range(2):
        prepare(build, Plan(), 8, example=(np.zeros((1, 4), "float32"), np.zeros(1, "int64")))
    assert runs == ["Linear"] * 3


def test_what_an_optimizer_makes_of_parameters_is_its_own(runs):
    def sgd(momentum):
        return lambda parameters: optim.SGD(parameters, lr=0.1, momentum=momentum)

    costs = [total(optimizer=made) for made in (sgd(0.0), sgd(0.9), optim.Adam, optim.LAMB)]
    assert len(set(costs)) == 4 and costs[:3] == sorted(costs[:3])
    assert [total(optimizer=made) for made in (sgd(0.0), sgd(0.9), optim.Adam, optim.LAMB)] == costs
    assert runs == ["GPTEmbedding", "GPTBlock", "GPTHead"]  # whatever the optimizer
    state = {
        momentum: [p.state_bytes for b in prepare(gpt, Plan(), 8, optimizer=sgd(momentum)).profile.blocks
                   for p in b.parameters]
        for momentum in (0.0, 0.9)
    }  # fmt: skip
    assert not any(state[0.0]) and all(state[0.9])


def test_an_optimizer_of_a_users_own_is_run_each_time():
    times = 1

    class Own(optim.SGD):
        def update(self, *given):
            for _ in range(times):
                super().update(*given)

    def updates():
        blocks = prepare(gpt, Plan(), 8, optimizer=lambda parameters: Own(parameters, lr=0.1)).profile.blocks
        return sum(flops(block.update) for block in blocks)

    once, times = updates(), 3
    assert updates() == 3 * once


def test_groups_of_parameters_have_options_of_their_own():
    def grouped(parameters):
        first, *others = parameters
        return optim.SGD([{"params": [first], "momentum": 0.9}, {"params": others}], lr=0.1)

    for _ in range(2):
        for block in prepare(gpt, Plan(), 8, optimizer=grouped).profile.blocks:
            assert [bool(p.state_bytes) for p in block.parameters] == [True] + [False] * (len(block.parameters) - 1)


def test_one_device_is_not_taken_for_another(runs):
    for device in ("cpu", "cuda", "cpu", "cuda"):
        prepare(gpt, Plan(), 8, device=device)
    assert runs == ["GPTEmbedding", "GPTBlock", "GPTHead"] * 2


def test_only_the_last_are_remembered():
    known, made = Remembered(2), []
    for key in "abacab":
        known.get(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]
