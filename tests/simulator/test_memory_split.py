"""Where layers, sequences, experts or images are split, a worker holds what is predicted, and what the papers say."""

from functools import partial

import numpy as np
import pytest

from minidl import data, models
from minidl.models.image_layers import SPLITS
from minidl.models.moe_gpt import MoELoss
from minidl.parallel import Plan
from minidl.parallel.prepare import prepare
from tests.simulator.held import check_memory

TEXT = np.random.default_rng(0).integers(32, size=(128, 17))
SENTENCES = data.ArrayDataset(TEXT[:, :-1], TEXT[:, 1:])
SIZES = dict(hidden=32, heads=4, vocabulary=32, sequence=16, dropout=0.1)
LLAMA = dict(kv_heads=2, positions="rotary", feed_forward="swiglu", norm="rms", bias=False)


def gpt(mesh, **options):
    return models.gpt(layers=3, mesh=mesh, **SIZES, **options)


def mixture(mesh):
    return models.moe_gpt(layers=2, experts=4, mesh=mesh, **SIZES)


def cnn(mesh, split):
    return models.cnn(1, 8, widths=(8, 16, 16), mesh=mesh, split=split)


SLICED = dict(tensor=2, sequence_parallel=True)
FULL = dict(recompute="full", bucket_mb=0.01)
TWO_HALVES = dict(schedule="zero-bubble", micro_batches=2)
OF_GPT = [
    Plan(tensor=2, micro_batches=2),
    Plan(**SLICED),
    Plan(**SLICED, data=2, sharding="optimizer"),
    Plan(**SLICED, data=2, sharding="parameters", bucket_mb=0.01),
    Plan(**SLICED, recompute="selective"),
    Plan(**SLICED, **TWO_HALVES),
    Plan(context=2),
    Plan(**SLICED, context=2),
    Plan(context=2, sharding="optimizer"),
    Plan(context=2, pipeline=2, micro_batches=2),
    Plan(context=2, **FULL),
    Plan(context=2, **TWO_HALVES),
]
OF_MIXTURES = [
    Plan(tensor=2),
    Plan(expert=2),
    Plan(**SLICED, expert=2),
    Plan(expert=2, data=2, sharding="optimizer"),
    Plan(expert=2, data=2, micro_batches=2, sharding="gradients", bucket_mb=0.01),
    Plan(expert=2, data=2, sharding="parameters", bucket_mb=0.01),
    Plan(expert=2, pipeline=2, micro_batches=2),
    Plan(expert=2, **FULL),
    Plan(expert=2, **TWO_HALVES),
]
OF_IMAGES = [
    Plan(tensor=2),
    Plan(tensor=2, micro_batches=2, **FULL),
    Plan(tensor=2, data=2, sharding="optimizer"),
    Plan(tensor=2, pipeline=2, micro_batches=2),
]


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("plan", OF_GPT, ids=str)
@pytest.mark.parametrize("options", [{}, LLAMA, {"tied": True}], ids=["gpt", "llama", "tied"])
def test_a_transformer_with_split_layers_and_sequences_holds_what_is_predicted(options, plan):
    assert check_memory(partial(gpt, **options), SENTENCES, plan) < 1.02


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("plan", OF_MIXTURES, ids=str)
def test_a_mixture_with_split_experts_holds_what_is_predicted(plan):
    assert check_memory(mixture, SENTENCES, plan, loss=MoELoss()) < 1.02


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("plan", OF_IMAGES, ids=str)
@pytest.mark.parametrize("split", SPLITS)
def test_a_convolutional_network_holds_what_is_predicted_however_it_is_split(split, plan):
    assert check_memory(partial(cnn, split=split), data.digits()[0], plan) < 1.02


# Korthikanti et al. 2022, "Reducing activation recomputation in large transformer models", table 2


@pytest.mark.parametrize("recompute", ["none", "selective"])
@pytest.mark.parametrize(("batch", "sequence", "hidden", "heads"), [(2, 64, 64, 4), (3, 32, 128, 8), (1, 128, 64, 8)])
def test_activations_of_a_layer_fall_with_tensor_ranks_as_table_2_says(batch, sequence, hidden, heads, recompute):
    """In the paper s b h (10 + 24/t + 5 a s / (h t)) bytes, with sequence parallelism s b h (34 + 5 a s / h) / t.

    Elements there have 2 bytes, and 4 here: so 18 = 2 + 4 * 4 and 48 take the place of 10 = 2 + 4 * 2, where masks of
    dropout have one byte, and 24. Of attention, which has no dropout here, the weights alone are kept, 4 a s / h, or
    none if they are computed again. Kept beside are means and deviations of two normalisations, 16 / h.
    """

    def kept(**fields):
        def build(mesh):
            return models.gpt(2, hidden, heads, 32, sequence, mesh, dropout=0.1)

        profile = prepare(build, Plan(recompute=recompute, **fields), batch).profile
        return profile.blocks[1].saved_bytes / (sequence * batch * hidden)

    weights = 4 * heads * sequence / hidden if recompute == "none" else 0
    whole = 18 + 16 / hidden
    for t in 1, 2, 4:
        assert kept(tensor=t) == pytest.approx(whole + (48 + weights) / t)
        if t > 1:
            assert kept(tensor=t, sequence_parallel=True) == pytest.approx((whole + 48 + weights) / t)
