"""What a plan and a model cannot do together is refused in one sentence, which names the field."""

import subprocess
from functools import partial

import numpy as np
import pytest

from minidl import data, models, nn, optim
from minidl.parallel import Plan, train
from minidl.parallel.prepare import prepare

SIZES = dict(layers=2, hidden=16, heads=4, vocabulary=12, sequence=8)


def gpt(**options):
    return lambda mesh: models.gpt(**SIZES | options, mesh=mesh)


def moe_gpt(**options):
    return lambda mesh: models.moe_gpt(**SIZES | {"experts": 4} | options, mesh=mesh)


def bert(**options):
    return lambda mesh: models.bert(**SIZES | options, mesh=mesh)


def mlp(split="column-row", sizes=(64, 12, 10)):
    return lambda mesh: models.mlp(sizes, mesh, split)


def cnn(split, **options):
    return lambda mesh: models.cnn(mesh=mesh, split=split, **options)


SLICED = {"tensor": 2, "sequence_parallel": True}
REFUSED = [  # a builder, the fields of a plan, and what is said
    (gpt(), {"tensor": 8}, "gpt: heads=4 is not divisible by tensor=8"),
    (gpt(kv_heads=2), {"tensor": 4}, "gpt: kv_heads=2 is not divisible by tensor=4"),
    (gpt(inner=17), {"tensor": 2}, "gpt: inner=17 is not divisible by tensor=2"),
    (gpt(inner=17, feed_forward="swiglu"), {"tensor": 2}, "gpt: inner=17 is not divisible by tensor=2"),
    (gpt(vocabulary=13), {"tensor": 2}, "gpt: vocabulary=13 is not divisible by tensor=2"),
    (gpt(sequence=10), {"context": 2}, "gpt: sequence=10 is not divisible by 2 × context=2"),
    (gpt(sequence=9), SLICED, "gpt: sequence=9 is not divisible by tensor=2, as sequence_parallel needs"),
    (
        gpt(sequence=12),
        SLICED | {"tensor": 4, "context": 2},
        "gpt: sequence=12 is not divisible by context=2 × tensor=4, as sequence_parallel needs",
    ),
    (gpt(), {"expert": 2}, "expert=2, but the builder splits no layer over mesh.group('expert')"),
    (gpt(), {"pipeline": 8}, "pipeline=8 needs at least 8 blocks, the model has 4"),
    (
        gpt(),
        {"pipeline": 4, "chunks": 2, "schedule": "interleaved", "micro_batches": 4},
        "pipeline=4 × chunks=2 needs at least 8 blocks, the model has 4",
    ),
    (bert(vocabulary=13), {"tensor": 2}, "bert: vocabulary=13 is not divisible by tensor=2"),
    (bert(), {"context": 2}, "context=2, but the builder splits no layer over mesh.group('context')"),
    (bert(), SLICED, "sequence_parallel=True, but no layer of the model slices sequences over the tensor axis"),
    (moe_gpt(), {"context": 2}, "moe_gpt: context=2 shares sequences, but the slots of an expert and its"),
    (moe_gpt(experts=3), {"expert": 2}, "MixtureOfExperts: experts=3 is not divisible by expert=2"),
    (moe_gpt(inner=17), {"tensor": 2}, "gpt: inner=17 is not divisible by tensor=2"),
    (moe_gpt(sequence=7), SLICED, "gpt: sequence=7 is not divisible by tensor=2, as sequence_parallel needs"),
    (mlp(), {"context": 2}, "context=2, but the builder splits no layer over mesh.group('context')"),
    (mlp(), {"expert": 2}, "expert=2, but the builder splits no layer over mesh.group('expert')"),
    (mlp(), SLICED, "sequence_parallel=True, but no layer of the model slices sequences over the tensor axis"),
    (mlp(), {"recompute": "selective"}, 'recompute="selective", but the model has no attention'),
    (mlp(sizes=(64, 13, 10)), {"tensor": 2}, "ColumnParallelLinear: out_features=13 is not divisible by tensor=2"),
    (mlp("columns", (64, 13)), {"tensor": 2}, "ColumnParallelLinear: out_features=13 is not divisible by tensor=2"),
    (mlp("inner", (63, 13)), {"tensor": 2}, "RowParallelLinear: in_features=63 is not divisible by tensor=2"),
    (mlp("rows"), {"tensor": 3}, "dimension 0 of shape (32, 64) is not divisible by tensor=3"),
    (mlp("summa", (64, 13)), {"tensor": 4}, "out_features=13 is not divisible by 2: tensor=4 is a grid of 2 × 2"),
    (mlp("summa"), {"tensor": 4, "data": 32}, "dimension 0 of shape (1, 64) is not divisible by 2 (tensor as 2 × 2"),
    (
        cnn("space"),
        {"tensor": 4},
        "SpatialConv2d: its results have 4 rows, they need tensor=4 × 2 (a window of the pool) at least",
    ),
    (cnn("output", widths=(6, 8, 8)), {"tensor": 4}, "out_channels=6 is not divisible by tensor=4"),
    (cnn("input", widths=(6, 6, 6)), {"tensor": 4}, "tensor=4, but no layer of the model communicates over that axis"),
    (cnn("batch"), {"tensor": 3}, "a micro-batch of 32 samples is not divisible by tensor=3, which share it"),
    (cnn("space"), {"context": 2}, "context=2, but the builder splits no layer over mesh.group('context')"),
    (cnn("space"), {"expert": 2}, "expert=2, but the builder splits no layer over mesh.group('expert')"),
    (cnn("space"), SLICED, "sequence_parallel=True, but no layer of the model slices sequences over the tensor axis"),
    (
        moe_gpt(),
        {"data": 2, "expert": 2, "micro_batches": 3},
        "batch_size 32 is not divisible by data=2 × expert=2 × micro_batches=3 (= 12)",
    ),
    (gpt(), {"sequence_parallel": True}, "sequence_parallel=True needs tensor=2 or more"),
    (gpt(), {"schedule": "interleaved"}, 'schedule="interleaved" needs several chunks a stage: say chunks=2 or more'),
    (gpt(), {"pipeline": 2, "chunks": 2}, 'schedule="1f1b" runs one chunk a stage, not chunks=2'),
    (gpt(), {"chunks": 2, "schedule": "gpipe"}, "chunks=2 needs pipeline=2 or more: a single stage has the whole"),
    (
        gpt(),
        {"pipeline": 2, "chunks": 2, "schedule": "interleaved", "micro_batches": 3},
        'schedule="interleaved" needs micro_batches that are a multiple of pipeline=2, not 3',
    ),
    (gpt(), {"context": 0}, "context=0 is not a whole number of at least 1"),
    (gpt(), {"expert": 1.5}, "expert=1.5 is not a whole number of at least 1"),
    (gpt(), {"sequence_parallel": 1}, "sequence_parallel must be True or False, not 1"),
]


@pytest.mark.parametrize(("build", "given", "message"), REFUSED, ids=[str(message)[:50] for *_, message in REFUSED])
def test_what_does_not_go_together_is_refused_in_a_sentence_that_names_the_field(build, given, message):
    with pytest.raises(ValueError) as caught:
        prepare(build, Plan(**given), batch_size=32)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert any(f"{name}" in str(caught.value) for name in given)


# The last, short batch


@pytest.fixture
def no_process(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr("minidl.parallel.runtime.launch.ChildProcess", None)


def digits(samples):
    return data.ArrayDataset(*data.digits()[0][np.arange(samples)])


def run(build, samples, plan, **options):
    settings = dict(optimizer=partial(optim.SGD, lr=0.1), loss=nn.CrossEntropyLoss(), batch_size=8, steps=5, timeout=60)
    return train(build, digits(samples), plan, **settings | options)


SHORT = [  # a builder, a plan, how many samples there are, and of a micro-batch of the last batch
    (mlp("rows"), Plan(tensor=2), 33, 1),
    (mlp("rows"), Plan(tensor=2, micro_batches=2), 35, 1),
    (mlp("rows"), Plan(tensor=2, micro_batches=2), 37, 3),  # the other one, of 2, divides
    (mlp("rows"), Plan(tensor=2, data=2), 37, 3),
    (mlp("summa"), Plan(tensor=4), 39, 7),
]


@pytest.mark.parametrize(("build", "plan", "samples", "size"), SHORT)
def test_a_last_batch_that_a_split_cannot_take_is_refused_before_a_process_starts(
    no_process, build, plan, samples, size
):
    cut = f"(data={plan.data}, micro_batches={plan.micro_batches}) {size}: dimension 0 of shape ({size}, 64) is not"
    for options, sentence, hint in (
        ({}, f"of {samples} samples, the last batch of an epoch has {samples % 8}", ", or drop_last"),
        ({"evaluate": digits(samples), "steps": 1}, f"the last batch of the evaluation has {samples % 8}", "than 8"),
        ({"evaluate": digits(samples), "drop_last": True}, "the last batch of the evaluation has", "than 8"),
    ):
        with pytest.raises(ValueError) as caught:
            run(build, samples, plan, **options)
        assert sentence in str(caught.value) and cut in str(caught.value) and str(caught.value).endswith(hint)


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize(
    ("build", "options"),
    [
        (mlp("rows"), {"drop_last": True}),
        (mlp("rows"), {"steps": 4, "evaluate": digits(34)}),  # the short batch would be the fifth
        (cnn("batch"), {"evaluate": digits(33)}),  # one rank has a sample, the other has none
    ],
    ids=["dropped", "never reached", "shared unequally"],
)
def test_a_short_batch_that_is_not_come_to_or_can_be_shared_is_not_refused(build, options):
    result = run(build, 33, Plan(tensor=2), **options)
    assert np.isfinite(result.losses).all()


def test_an_evaluation_is_not_refused_what_only_training_cannot_do():
    def with_batch_norm(mesh):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))

    result = run(with_batch_norm, 32, Plan(), evaluate=digits(33))
    assert len(result.evaluations) == 1
