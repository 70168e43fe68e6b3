"""repeated: all blocks where a model is built; where it is priced one of each kind, unless more is asked of it."""

import numpy as np
import pytest

import minidl
from minidl import models, nn
from minidl.models.gpt import GPTBlock
from minidl.nn.repeated import Alike
from minidl.parallel import Plan
from minidl.parallel.chain_profile import build_on_meta, chain_of
from minidl.parallel.prepare import prepare

SIZES = dict(layers=5, hidden=16, heads=2, vocabulary=32, sequence=8)


def gpt(change=lambda model: None):
    def build(mesh):
        model = models.gpt(**SIZES, mesh=mesh)
        change(model)
        return model

    return build


def stand_ins(build):
    chain = chain_of(build_on_meta(build, Plan().mesh(), whole=False))
    return sum(type(block) is Alike for block in chain)


def facts(build, plan):
    """What prices read of a chain: the calls and parameters of each block, and which are tied."""
    profile = prepare(build, plan, 4).profile
    held = [(block.forward, block.accumulate, block.saved, block.parameters, block.passed) for block in profile.blocks]
    return held, profile.ties, profile.first_trained, profile.loss, profile.parameter_bytes


def test_blocks_that_are_built_are_made_one_after_the_other():
    minidl.manual_seed(0)
    repeated = nn.repeated(3, lambda: nn.Linear(4, 4))
    minidl.manual_seed(0)
    for one, other in zip(repeated, [nn.Linear(4, 4) for _ in range(3)], strict=True):
        np.testing.assert_array_equal(one.weight.numpy(), other.weight.numpy())
    assert len({id(block.weight) for block in repeated}) == 3


def test_blocks_of_several_kinds_are_made_in_order():
    blocks = nn.repeated_kinds([3, 5, 3], lambda kind: nn.Linear(kind, 2))
    assert [block.weight.shape for block in blocks] == [(2, 3), (2, 5), (2, 3)]


def test_a_chain_that_is_priced_has_each_kind_of_block_once_and_one_that_is_built_has_all():
    made = []

    def build(mesh):
        kinds = [True, False, False, True, True]
        return nn.Sequential(*nn.repeated_kinds(kinds, lambda bias: made.append(bias) or nn.Linear(4, 4, bias)))

    model = build_on_meta(build, Plan().mesh(), whole=False)
    assert made == [True, False] and len(model.blocks) == 5
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.weight"]
    names = [name for name, _ in build_on_meta(build, Plan().mesh()).named_parameters()]
    assert names == ["0.weight", "0.bias", "1.weight", "2.weight", "3.weight", "3.bias", "4.weight", "4.bias"]


@pytest.mark.parametrize("plan", [Plan(), Plan(pipeline=3, micro_batches=2), Plan(data=2, sharding="parameters")])
def test_a_chain_costs_the_same_whether_one_block_stands_for_others_or_not(plan):
    listed = gpt(lambda model: isinstance(model[1], GPTBlock))  # who asks that gets all of them
    assert stand_ins(gpt()) == SIZES["layers"] and stand_ins(listed) == 0
    assert facts(gpt(), plan) == facts(listed, plan)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[2].requires_grad_(False),
        lambda model: model.blocks[3].feed_forward.down.requires_grad_(False),
        lambda model: setattr(model[2], "dropout", nn.Dropout(0.5)),
        lambda model: model[2].register_forward_hook(lambda module, inputs, out: out * 2),
        lambda model: [module.eval() for module in model.modules() if isinstance(module, nn.LayerNorm)],
        lambda model: [setattr(b, "dropout", nn.Dropout(0.5)) for b in model if isinstance(b, GPTBlock)],
    ],
)
def test_a_builder_that_looks_into_a_block_gets_all_of_them(change):
    assert stand_ins(gpt(change)) == 0


def test_what_a_builder_changes_of_one_block_is_priced_of_that_block():
    blocks = prepare(gpt(lambda model: model[2].requires_grad_(False)), Plan(), 4).profile.blocks
    assert [any(p.trained for p in block.parameters) for block in blocks] == [True, True, False, True, True, True, True]


def test_blocks_that_stand_for_others_are_not_tied_and_the_embedding_still_is():
    def build(mesh):
        return models.gpt(**SIZES, mesh=mesh, tied=True)

    (tie,) = prepare(build, Plan(), 4).profile.ties
    assert [block for block, _ in tie.holders] == [0, SIZES["layers"] + 1]


@pytest.mark.parametrize(("every", "kinds"), [(1, 1), (2, 2)])
def test_a_chain_of_dense_blocks_and_mixtures_has_one_of_each(every, kinds):
    def build(mesh):
        return models.moe_gpt(**SIZES, experts=2, every=every, mesh=mesh)

    chain = chain_of(build_on_meta(build, Plan().mesh(), whole=False))
    assert len({id(block.made) for block in chain if type(block) is Alike}) == kinds


def test_the_model_that_was_prepared_has_all_its_blocks():
    prepared = prepare(gpt(), Plan(), 4)
    assert not any(type(block) is Alike for block in prepared.model.blocks)
    assert prepared.model is prepared.model
    assert prepared.model.state_dict().keys() == models.gpt(**SIZES).state_dict().keys()
