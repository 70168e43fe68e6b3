"""A plan written as text, or as its repr, is the plan."""

from dataclasses import asdict, fields

import numpy as np
import pytest
import rich
from hypothesis import given

from minidl.parallel import Plan
from tests.parallel.plans import PLANS


@given(PLANS)
def test_a_plan_is_read_from_its_fields_as_text(plan):
    assert Plan.parse(" ".join(f"{name}={value}" for name, value in asdict(plan).items())) == plan


@given(PLANS)
def test_the_repr_of_a_plan_is_the_call_that_makes_it(plan):
    assert eval(repr(plan)) == plan


def test_the_repr_of_a_plan_has_the_fields_that_are_not_as_by_default():
    assert repr(Plan()) == "Plan()"
    assert repr(Plan(data=2, micro_batches=1, schedule="gpipe")) == "Plan(data=2, schedule='gpipe')"
    assert repr(Plan(pipeline=np.int64(2), bucket_mb=np.float32(0.5))) == "Plan(pipeline=2, bucket_mb=0.5)"


def test_the_fields_of_a_plan_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        Plan(2)


def test_wherever_a_plan_is_shown_it_is_its_label(capsys):
    plan = Plan(data=2, pipeline=2)
    assert str(plan) == "pipeline 2 × data 2, 1f1b"
    assert plan._repr_html_().count(str(plan)) == 1
    rich.print(plan)
    assert capsys.readouterr().out == f"{plan}\n"


def test_an_empty_text_is_one_worker():
    assert Plan.parse("") == Plan.parse("  ") == Plan()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dat=2", "'dat=2' is no field of a plan: write name=value, with one of data, pipeline"),
        ("data", "'data' is no field of a plan"),
        ("data=2 data=3", "data is given twice"),
        ("data=two", "data=two: 'two' is not a whole number"),
        ("data=2.5", "data=2.5: '2.5' is not a whole number"),
        ("bucket_mb=two", "bucket_mb=two: 'two' is not a number"),
        ("data=0", "data"),
        ("schedule=fast", "unknown schedule 'fast'"),
        ("bucket_mb=-1", "bucket_mb"),
        ("bucket_mb=inf", "bucket_mb=inf is not a finite number"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_sentence(text, message):
    with pytest.raises(ValueError, match=message):
        Plan.parse(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(schedule="interleaved", pipeline=2), 'schedule="interleaved" needs several chunks a stage: say chunks=2'),
        (dict(chunks=2, pipeline=2), 'schedule="1f1b" runs one chunk a stage, not chunks=2'),
        (dict(chunks=2, pipeline=2, schedule="zero-bubble"), 'schedule="zero-bubble" runs one chunk a stage'),
        (dict(chunks=2, schedule="gpipe"), "chunks=2 needs pipeline=2 or more: a single stage has the whole chain"),
        (dict(chunks=2, schedule="interleaved"), "chunks=2 needs pipeline=2 or more"),
        (
            dict(chunks=2, pipeline=4, micro_batches=6, schedule="interleaved"),
            'schedule="interleaved" needs micro_batches that are a multiple of pipeline=4, not 6',
        ),
        (dict(precision="tfloat32"), "unknown precision 'tfloat32': choose one of float32, bfloat16, float16"),
        (dict(recompute="some"), "unknown recompute 'some': choose one of none, selective, full"),
    ],
    ids=str,
)
def test_fields_that_do_not_hold_together_are_refused_in_one_sentence(wrong, message):
    for make in (lambda: Plan(**wrong), lambda: Plan.parse(" ".join(f"{k}={v}" for k, v in wrong.items()))):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("field", fields(Plan), ids=lambda field: field.name)
def test_every_field_refuses_what_it_cannot_be(field):
    for wrong in (0, -1, None, "many", float("nan"), *[True] * (field.default is not False)):
        with pytest.raises(ValueError, match=f"{field.name}.*{wrong!r}"):
            Plan(**{field.name: wrong})


@pytest.mark.parametrize(
    ("plan", "label"),
    [
        (Plan(), "one worker"),
        (Plan(data=2, sharding="optimizer"), "data 2, ZeRO-1"),
        (Plan(data=2, pipeline=2, micro_batches=4, schedule="gpipe"), "pipeline 2 × data 2, gpipe ×4"),
        (
            Plan(pipeline=2, micro_batches=2, schedule="interleaved", chunks=2),
            "pipeline 2, interleaved, 2 chunks ×2",
        ),
        (Plan(tensor=2, precision="float16"), "tensor 2, float16"),
        (Plan(tensor=2, recompute="selective"), "tensor 2, selective recompute"),
        (Plan(recompute="full", bucket_mb=4), "one worker, full recompute, buckets of 4 MiB"),
    ],
)
def test_a_plan_has_a_short_label(plan, label):
    assert plan.label == label
