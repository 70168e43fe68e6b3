"""A comparison that takes a second: four plans of a small model, each run once for three steps."""

import sys

import pytest

from minidl import models
from minidl.parallel import Plan
from simulator.compare import Comparison, compare
from simulator.experiments import Experiment
from tests.simulator.hand_made import made_up

PLANS = (Plan(), Plan(data=2), Plan(pipeline=2, micro_batches=2), Plan(tensor=2))
TINY = (Experiment("tiny net", models.builder("mlp-digits"), PLANS, 3),)


def tiny_comparison(progress=lambda what, done, total: None, **options) -> Comparison:
    """It, on a made-up calibration; the speed probe has found nothing changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["simulator.compare"], "drift", lambda _: (1.0, 1.0))
        return compare(made_up(), progress, TINY, **options)
