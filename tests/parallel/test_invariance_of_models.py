"""Every two values of two fields of a plan, and a model, meet in a training, which is as that of one worker.

Transformers with and without experts, and convolutional networks split in each way.
"""

from functools import cache

import numpy as np
import pytest

from minidl import data, models
from minidl.models.image_layers import SPLITS
from minidl.models.latent_attention import LatentSizes
from minidl.models.moe_gpt import MoELoss
from minidl.parallel import Plan
from minidl.parallel.plan import RECOMPUTATIONS, SHARDINGS
from minidl.parallel.schedules import SCHEDULES
from tests.parallel.covering import (
    MAX_WORKERS,
    assert_same,
    case_id,
    cases_of,
    cover,
    difference,
    fields,
    meetings,
    run,
)

pytestmark = pytest.mark.usefixtures("warm_workers")

SIZES = dict(layers=2, hidden=16, heads=4, vocabulary=12, sequence=8, dropout=0.1)
BLOCKS, BATCH = SIZES["layers"] + 2, 16
LLAMA = dict(
    kv_heads=2, head_dim=6, normed_heads=True, positions="rotary", feed_forward="swiglu", norm="rms", bias=False
)
LATENT = dict(positions="rotary", latent=LatentSizes(query_rank=6, kv_rank=5, rotary_dim=2, value_dim=3))
MODELS = {
    "gpt": (models.gpt, {}),
    "tied": (models.gpt, {"tied": True, "feed_forward": "relu"} | LATENT),
    "llama": (models.gpt, LLAMA),
    "experts": (models.moe_gpt, {"experts": 4, "shared_inner": 8, "dense_layers": 1, "dense_inner": 12} | LATENT),
    "tied experts": (models.moe_gpt, {"experts": 4, "every": 2, "top_k": 1, "tied": True}),
    "mixtral": (models.moe_gpt, {"experts": 4, "capacity_factor": 1.0, "whole_experts": True} | LLAMA),
}
MODELS |= {split: (models.cnn, {"split": split}) for split in SPLITS}
MOST_TENSOR = {model: options.get("kv_heads", SIZES["heads"]) for model, (_, options) in MODELS.items()}
MOST_TENSOR["space"] = 2  # rows that the last pool leaves
TEXT = np.random.default_rng(0).integers(0, 12, (36, 9))
SENTENCES = data.ArrayDataset(TEXT[:, :-1], TEXT[:, 1:])  # 2 batches, and one of 4 sentences
DIGITS = data.ArrayDataset(*data.digits()[0][np.arange(len(TEXT))])

COMMON = {
    "data": (1, 2),
    "pipeline": (1, 2),
    "tensor": (1, 2),
    "micro_batches": (1, 2),
    "schedule": tuple(SCHEDULES),
    "chunks": (1, 2),
    "recompute": RECOMPUTATIONS,
    "sharding": SHARDINGS,
    "sequence_parallel": (False, True),
}
FAMILIES = {
    "dense": COMMON | {"context": (1, 2), "model": ("gpt", "tied", "llama")},
    "mixtures": COMMON | {"expert": (1, 2), "model": ("experts", "tied experts", "mixtral")},
    "images": COMMON | {"recompute": ("none", "full"), "sequence_parallel": (False,), "model": SPLITS},
}
WIDE = dict.fromkeys(("data", "pipeline", "tensor", "micro_batches", "context", "expert"), (1, 2, 4))


def builder(model):
    make, options = MODELS[model]
    sizes = {"widths": (4, 8, 8)} if make is models.cnn else SIZES

    def build(mesh):
        return make(**sizes, **options, mesh=mesh)

    return build


def trained(model, plan, **options):
    make, _ = MODELS[model]
    samples = DIGITS if make is models.cnn else SENTENCES
    settings = dict(momentum=0.9, lr=3.0, steps=3, batch_size=BATCH, clip_norm=0.7, evaluate=samples) | options
    if make is models.moe_gpt:
        settings["loss"] = MoELoss()
    return run(builder(model), samples, plan, **settings)


@cache
def one_worker(model):
    return trained(model, Plan())


def fits(plan):
    return plan.pipeline * plan.chunks <= BLOCKS and BATCH % (plan.sample_parts * plan.micro_batches) == 0


def can_be_split(case):
    samples = BATCH // (case["data"] * case["micro_batches"])
    return case["tensor"] <= MOST_TENSOR[case["model"]] and (case["model"] != "batch" or samples % case["tensor"] == 0)


def cases(options, workers):
    return [case for case in cases_of(options, fits, workers) if can_be_split(case)]


def check_case(case):
    """`dropped` are counts of a rank's own choices, and no part of the model."""
    got, expected = trained(case["model"], Plan(**fields(case))), one_worker(case["model"])
    assert_same(got, expected, 1e-10, without=["dropped"])
    (ours,), (theirs,) = got.evaluations, expected.evaluations
    assert ours.accuracy == theirs.accuracy and ours.loss == pytest.approx(theirs.loss, rel=1e-10)


CASES = {family: cases(options, workers=4) for family, options in FAMILIES.items()}
COVERS = {family: cover(CASES[family]) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cover_holds_every_pair_of_values_that_fits(family):
    assert meetings(COVERS[family]) == meetings(CASES[family])


@pytest.mark.parametrize("case", [case for cases in COVERS.values() for case in cases], ids=case_id)
def test_every_plan_trains_a_model_as_one_worker_does(case):
    check_case(case)


def check_cases(found):
    for case in found:
        try:
            check_case(case)
        except Exception as error:
            error.add_note(case_id(case))
            raise


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_plans_with_axes_of_four_train_a_model_as_one_worker_does(family):
    options = {name: WIDE.get(name, values) for name, values in FAMILIES[family].items()}
    check_cases(cover(cases(options, MAX_WORKERS)))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_wherever_three_values_meet_a_model_trains_as_one_worker_does(family):
    check_cases(cover(cases(FAMILIES[family], MAX_WORKERS), strength=3))


@pytest.mark.parametrize("model", MODELS)
def test_in_the_few_steps_of_the_reference_every_parameter_goes_far(model):
    start = trained(model, Plan(), steps=1, lr=1e-300).state_dict()
    for name, value in one_worker(model).state_dict().items():
        if value.dtype.kind == "f":
            assert difference(value, start[name] + 1e-30) > 1e-3, name


@pytest.mark.parametrize("plan", [Plan(expert=2, tensor=2), Plan(data=2, tensor=2, sequence_parallel=True)], ids=str)
def test_whole_experts_on_the_tensor_ranks_train_as_on_one_worker(plan):
    assert_same(trained("mixtral", plan), one_worker("mixtral"), 1e-10, without=["dropped"])
