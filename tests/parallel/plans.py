"""Plans that hold, of every combination of values of their fields; and how much their schedules keep alive."""

import itertools
from dataclasses import asdict

from hypothesis import strategies as st

from minidl.parallel import Plan
from minidl.parallel.plan import PRECISIONS, RECOMPUTATIONS, SHARDINGS
from minidl.parallel.schedules import SCHEDULES


def plan_or_none(fields):
    """The plan with these fields, or None if it is refused."""
    try:
        return Plan(**fields)
    except ValueError:
        return None


def plans(**choices):
    """The plans of every combination of `choices`, a sequence of values for each field."""
    combinations = (dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))
    return [plan for plan in map(plan_or_none, combinations) if plan]


VALUES = {  # of every field; at most 8 chunks
    "data": st.integers(1, 4),
    "pipeline": st.integers(1, 4),
    "tensor": st.integers(1, 4),
    "context": st.integers(1, 2),
    "expert": st.integers(1, 2),
    "micro_batches": st.integers(1, 9),
    "schedule": st.sampled_from(sorted(SCHEDULES)),
    "chunks": st.integers(1, 2),
    "recompute": st.sampled_from(RECOMPUTATIONS),
    "bucket_mb": st.floats(0.01, 1e4),
    "sharding": st.sampled_from(SHARDINGS),
    "sequence_parallel": st.booleans(),
    "precision": st.sampled_from(sorted(PRECISIONS)),
}
assert VALUES.keys() == asdict(Plan()).keys()

PLANS = st.fixed_dictionaries(VALUES).map(plan_or_none).filter(bool)


def promised_peak(plan, stage):
    """Pairs of a chunk and a micro-batch of which `stage` keeps anything at a time."""
    p, m, v = plan.pipeline, plan.micro_batches, plan.chunks
    if plan.recompute == "full":  # inputs do not count; what has its second half to come does
        return min(stage + 1, m) if plan.schedule == "zero-bubble" else 1
    match plan.schedule:
        case "naive":
            return v
        case "gpipe":
            return m * v
        case "1f1b":
            return min(p - stage, m)
        case "zero-bubble":  # on every stage what 1F1B keeps on the first
            return min(p, m)
        case "interleaved":  # the warm-up, and one that goes forward
            return min(2 * (p - stage - 1) + (v - 1) * p + 1, m * v)
