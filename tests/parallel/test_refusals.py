"""What cannot work is refused in one sentence before a process starts."""

import subprocess

import numpy as np
import pytest

from minidl import data, models, nn, optim
from minidl.parallel import Plan, ProgramError, launch, train


@pytest.fixture
def no_process(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_an_argument_that_cannot_be_pickled_is_refused_before_a_process_starts(no_process):
    with pytest.raises(TypeError, match="pickle"):
        launch(print, 2, args=((i for i in range(3)),))


WRONG_LAUNCHES = [
    (lambda: launch(print, 0), ValueError, "workers=0 is not a whole number of at least 1"),
    (lambda: launch(print, 2.0), ValueError, "workers=2.0 is not a whole number"),
    (lambda: launch("print", 2), TypeError, "launch needs a function to run in the workers, not a str"),
    (lambda: launch(print, 2, timeout=0), ValueError, "timeout=0 is not a positive number"),
    (lambda: launch(print, 2, threads=0), ValueError, "threads=0 is not a whole number of at least 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG_LAUNCHES, ids=[w[2][:30] for w in WRONG_LAUNCHES])
def test_launch_refuses_bad_arguments_before_a_process_starts(no_process, call, error, message):
    with pytest.raises(error, match=message):
        call()


def mlp(mesh):
    return models.mlp((64, 128, 10), mesh=mesh)


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


def tied(mesh):
    layer = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), layer, Detach(), layer)


RUN = {"optimizer": lambda p: optim.SGD(p, lr=0.1), "loss": nn.CrossEntropyLoss(), "batch_size": 32, "steps": 3}
WRONG_RUNS = [
    (mlp, Plan(), {"edit": 3}, TypeError, "edit must be a function of a Program, not 3"),
    (mlp, Plan(), {"edit": lambda program: None}, TypeError, "that returns the Program it changed, not a NoneType"),
    (
        mlp,
        Plan(),
        {"edit": lambda program: program.without(0, 1)},
        ProgramError,
        "reads activation of chunk 0, micro-batch 0, bucket 0",
    ),
    (mlp, Plan(data=3), {}, ValueError, "batch_size 32 is not divisible by data=3 × micro_batches=1 (= 3)"),
    (mlp, Plan(precision="float16"), {}, ValueError, 'precision="float16" is for the simulator: train computes in'),
    (mlp, Plan(), {"batch_size": 0}, ValueError, "batch_size=0 is not a whole number of at least 1"),
    (mlp, Plan(), {"batch_size": 2.5}, ValueError, "batch_size=2.5 is not a whole number of at least 1"),
    (mlp, Plan(pipeline=5), {}, ValueError, "pipeline=5 needs at least 5 blocks, the model has 4"),
    (mlp, Plan(tensor=3), {}, ValueError, "out_features=128 is not divisible by tensor=3"),
    (lambda mesh: [nn.Linear(2, 2)], Plan(), {}, TypeError, "the builder returned a list, not a minidl.nn.Module"),
    (lambda mesh: None, Plan(), {}, TypeError, "the builder returned a NoneType, not a minidl.nn.Module"),
    (lambda: mlp(None), Plan(), {}, TypeError, "the builder is called with one argument, the mesh"),
    (mlp, Plan(), {"optimizer": lambda: None}, TypeError, "optimizer is called with one argument, the parameters"),
    (mlp, Plan(), {"optimizer": lambda p: None}, TypeError, "which returns None"),
    (mlp, Plan(), {"callbacks": [lambda: None]}, TypeError, "a callback is called with one argument, a StepRecord"),
    (mlp, Plan(), {"device": "tpu"}, ValueError, "unknown device 'tpu'"),
    (mlp, Plan(), {"device": "meta"}, ValueError, "device 'meta' computes nothing"),
    (mlp, Plan(), {"steps": 0}, ValueError, "steps=0 is not a whole number of at least 1"),
    (mlp, Plan(), {"clip_norm": 0.0}, ValueError, "clip_norm=0.0 is not a positive number"),
    (mlp, Plan(), {"lr_schedule": 0.1}, TypeError, "lr_schedule must be a function of the step, not a float"),
    (mlp, Plan(), {"dtype": "float16"}, ValueError, "dtype float16 is not supported"),
    (mlp, Plan(), {"evaluate_every": 0}, ValueError, "evaluate_every=0 is not a whole number of at least 1"),
    (
        mlp,
        Plan(),
        {"evaluate": data.ArrayDataset(np.zeros((0, 64)), np.zeros(0, int))},
        ValueError,
        "to evaluate is empty",
    ),
    (mlp, Plan(), {"progress": "yes"}, TypeError, "progress must be True, False or None, not 'yes'"),
    (mlp, Plan(), {"progress": 1}, TypeError, "progress must be True, False or None, not 1"),
    (mlp, "data=2", {}, TypeError, "plan must be a Plan, not a str"),
    (
        tied,
        Plan(pipeline=2),
        {},
        ValueError,
        "blocks 1 and 3 share a parameter, but no gradient goes back to block 1: only one stage can train that",
    ),
]


@pytest.mark.parametrize(
    ("build", "plan", "options", "error", "message"), WRONG_RUNS, ids=[w[4][:40] for w in WRONG_RUNS]
)
def test_train_refuses_what_does_not_fit_before_a_process_starts(no_process, build, plan, options, error, message):
    with pytest.raises(error) as caught:
        train(build, data.digits()[0], plan, **(RUN | options))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "zigzag"}, "unknown schedule 'zigzag': choose one of naive, gpipe, 1f1b"),
        ({"data": 0}, "data=0 is not a whole number of at least 1"),
        ({"pipeline": 1.5}, "pipeline=1.5 is not a whole number of at least 1"),
        ({"tensor": True}, "tensor=True is not a whole number of at least 1"),
        ({"micro_batches": -1}, "micro_batches=-1 is not a whole number of at least 1"),
        ({"bucket_mb": 0}, "bucket_mb=0 is not a positive number"),
        ({"sharding": "everything"}, "unknown sharding 'everything': choose one of none, optimizer"),
    ],
)
def test_a_plan_refuses_what_makes_no_sense(options, message):
    with pytest.raises(ValueError) as caught:
        Plan(**options)
    assert message in str(caught.value)
