"""predict.py: GPT-3 on a thousand devices, which is held to the literature, and arguments that do not fit together."""

import math
import tracemalloc
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from minidl import models, nn, optim
from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.chain_profile import build_on_meta
from minidl.parallel.prepare import prepare
from minidl.plots import timeline_figure
from minidl.trace import COLLECTIVES, Event, Trace
from minidl.units import duration
from simulator import Cluster, simulate
from tests.simulator.hand_made import PerCall, cluster, links

LAYERS, HIDDEN, SEQUENCE, VOCABULARY = 96, 12288, 2048, 51200
PLAN = Plan(data=8, tensor=8, pipeline=16, micro_batches=24, precision="bfloat16")
BATCH_SIZE = 192

MLP = models.builder("mlp-digits")


@cache
def gpt3(plan=PLAN, batch_size=BATCH_SIZE):
    where = Cluster.load("dgx-a100", devices=1024)
    return simulate(models.builder("gpt3-175b"), plan, where, batch_size=batch_size)


# GPT-3


def test_a_step_of_gpt3_is_finite_and_its_figures_agree():
    p = gpt3()
    assert math.isfinite(p.step_seconds) and p.step_seconds > 0
    assert p.trace.step_seconds == pytest.approx(p.step_seconds)
    assert p.throughput == pytest.approx(BATCH_SIZE / p.step_seconds)
    assert p.mfu == pytest.approx(p.flops / p.step_seconds / 1024 / 312e12)
    assert all(seconds > 0 for seconds in p.breakdown.values())
    assert sum(p.breakdown.values()) == pytest.approx(p.step_seconds)
    assert p.breakdown["bubble"] == pytest.approx(p.trace.bubble_fraction * p.step_seconds)
    assert p.breakdown["exposed communication"] == pytest.approx(p.trace.exposed_communication)


def test_workers_that_are_alike_have_bubbles_though_one_of_them_is_in_the_trace():
    where = Cluster.load("dgx-a100", devices=8)
    several, single = (simulate(models.builder("mlp-digits"), Plan(data=n), where, 64) for n in (8, 1))
    for p, name in ((several, "bubble"), (single, "idle")):
        assert p.trace.ranks == [0] and f" {name} " in f"{p}".replace("\n", " ") and f"\n{name} " in f"{p.trace}"


def test_halos_of_rows_are_messages_of_the_prediction():
    p = simulate(models.builder("cifar-cnn"), Plan(tensor=2), Cluster.load("dgx-a100", devices=8), batch_size=64)
    found = {event.name for event in p.trace.events if event.lane == COLLECTIVES}
    assert {"send", "recv", "all_gather", "all_reduce"} <= found
    assert p.breakdown["exposed communication"] > 0


def test_a_prediction_is_one_line_of_its_own_figures():
    p = gpt3()
    line = f"<Prediction of {p.plan} on DGX A100 cluster: {duration(p.step_seconds)} a step, {p.mfu:.1%} MFU, fits>"
    assert repr(p) == line
    assert p.fits and p.memory_bytes == max(memory.total for memory in p.memory)
    assert len(p.trace.ranks) == len(p.memory) == 16


def test_the_bubble_of_gpt3_is_near_that_of_equal_stages():
    bubble = gpt3().breakdown["bubble"] / gpt3().step_seconds
    assert bubble == pytest.approx(15 / (24 + 15), abs=0.05)


def test_gpt3_has_175_billion_parameters():
    model = build_on_meta(models.builder("gpt3-175b"), PLAN.mesh(0))
    whole = sum(p.numel() for p in build_on_meta(models.builder("gpt3-175b"), Plan().mesh(0)).parameters())
    assert whole == pytest.approx(175.2e9, rel=2e-3)
    # A tensor rank holds its share of what is split, and whatever is not.
    copies = 7 * sum(p.numel() for p in model.parameters() if p.cut.is_whole)
    on_devices = 8 * sum(memory.parameters for memory in gpt3().memory) / 2  # bytes of bfloat16
    assert on_devices - copies == whole


def test_the_flops_of_gpt3_are_those_of_the_literature():
    """Narayanan et al. 2021, equation 3, without the recomputation (a quarter of the layers'): 72 B s l h² (…)."""
    h, s, v = HIDDEN, SEQUENCE, VOCABULARY
    theirs = 72 * BATCH_SIZE * s * LAYERS * h**2 * (1 + s / (6 * h) + v / (12 * LAYERS * h))
    assert gpt3().flops == pytest.approx(theirs, rel=0.02)
    # The same as 6 N per token, and 12 l h s of attention (Chowdhery et al. 2022, appendix B).
    tokens, parameters = BATCH_SIZE * s, 12 * LAYERS * h**2 + v * h
    assert theirs == pytest.approx(tokens * (6 * parameters + 12 * LAYERS * h * s), rel=1e-3)


def test_the_flops_of_a_batch_do_not_depend_on_the_plan():
    whole = gpt3().flops
    for plan in (Plan(data=64, pipeline=16, micro_batches=3), Plan(data=8, tensor=4, pipeline=32, micro_batches=24)):
        other = gpt3(plan).flops
        assert other == pytest.approx(whole, rel=0.01)  # what is not split is computed by every tensor rank


def test_gpt3_allocates_no_model():
    simulate(models.builder("gpt-tiny"), Plan(), Cluster.load("dgx-a100"), 8)  # whatever is made once
    tracemalloc.start()
    try:
        simulate(models.builder("gpt3-175b"), PLAN, Cluster.load("dgx-a100", devices=1024), batch_size=BATCH_SIZE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64e6  # the model has 350 GB


def test_the_activations_of_1f1b_fall_from_stage_to_stage():
    activations = [memory.activations for memory in gpt3().memory]
    assert all(before > after for before, after in pairwise(activations))
    inner = activations[1:-1]  # 15 to 2 micro-batches of as many layers, and the gradient that comes back
    border, micro_batch = 2 * SEQUENCE * HIDDEN, inner[0] - inner[1]
    assert inner == pytest.approx([(15 - i) * micro_batch + border for i in range(14)])


def test_gpt3_without_a_layer_and_with_slower_links_is_another_prediction():
    def shorter(mesh):
        whole = models.builder("gpt3-175b")(mesh)
        part = nn.Sequential(*whole.blocks[:40], *whole.blocks[41:])
        part.example = whole.example
        return part

    where = Cluster.load("dgx-a100", devices=1024)
    less = simulate(shorter, PLAN, where, batch_size=BATCH_SIZE)
    assert less.flops < gpt3().flops
    assert sum(m.parameters for m in less.memory) < sum(m.parameters for m in gpt3().memory)
    assert less.breakdown["compute"] < gpt3().breakdown["compute"]


def test_a_gpt3_that_does_not_fit_says_so():
    assert not gpt3(Plan(data=64, pipeline=16, micro_batches=3, precision="bfloat16")).fits


def test_the_timeline_of_gpt3_opens_again(tmp_path):
    gpt3().trace.save(tmp_path / "trace.json")
    again = Trace.load(tmp_path / "trace.json")
    assert again.kind == "simulated" and len(again.events) == len(gpt3().trace.events)
    assert again.step_seconds == pytest.approx(gpt3().step_seconds, rel=1e-6)
    rank = again.ranks[3]
    inside = [e for e in again.events if e.name == "all_reduce" and e.rank == rank]
    layers = 6  # of the stage: two collectives forward and two backward in each, for each micro-batch
    assert [len([e for e in inside if e.step == step]) for step in (0, 1)] == [24 * layers * 4] * 2
    assert {e.lane for e in inside} == {COLLECTIVES}


@pytest.mark.parametrize(
    ("seconds", "unit", "end"), [(4e-5, "µs", 40), (0.25, "ms", 250), (20, "s", 20), (1e4, "h", 2.778)]
)
def test_the_axis_of_a_timeline_has_the_unit_that_fits(seconds, unit, end):
    middle = 5.0 + seconds / 2
    trace = Trace([Event(0, "compute", "F0", 5.0, middle), Event(0, "compute", "B0", middle, 5.0 + seconds)])
    (axes,) = timeline_figure([("title", trace)]).axes
    assert axes.get_xlabel() == unit
    bars = [path.get_extents() for bars in axes.collections for path in bars.get_paths()]
    assert sorted(x for bar in bars for x in bar.intervalx) == pytest.approx([0, end / 2, end / 2, end], rel=1e-3)


# What a prediction says of itself


def test_a_prediction_is_printed_with_what_it_assumed():
    printed = str(gpt3()).splitlines()
    assert printed[:2] == [
        "pipeline 16 × data 8 × tensor 8, 1f1b, bfloat16, 24 micro-batches", "1,024 devices (128 DGX A100), predicted"
    ]  # fmt: skip
    assert printed[2].split(maxsplit=1) == ["batch", "192 samples of 2,048 tokens"]
    assert printed[3].split(maxsplit=1) == ["assumed", "bfloat16, Adam, CrossEntropyLoss"]
    assert max(map(len, printed)) <= 80
    assert duration(gpt3().step_seconds) in gpt3()._repr_html_()


def test_the_optimizer_and_the_loss_that_are_given_are_those_that_are_named():
    given = {"optimizer": lambda parameters: optim.SGD(parameters, lr=0.1), "loss": nn.MSELoss()}
    p = simulate(
        lambda mesh: nn.Linear(4, 2), Plan(), cluster(), 8, example=(np.ones((1, 4)), np.ones((1, 2))), **given
    )
    assert p.assumptions == {
        "precision": "float32",
        "stack": "default",
        "sequence": None,
        "optimizer": "SGD",
        "loss": "MSELoss",
    }
    frozen = simulate(lambda mesh: nn.ReLU(), Plan(), cluster(), 8, example=(np.ones((1, 4)), np.ones((1, 4))), **given)
    assert frozen.optimizer == "none"


def test_only_rows_of_tokens_are_sequences():
    assert gpt3().tokens_per_second == gpt3().throughput * SEQUENCE
    assert gpt3().seconds_for(3e11) == pytest.approx(3e11 / gpt3().tokens_per_second)
    images = simulate(MLP, Plan(), cluster(), 8)
    assert images.sequence is images.tokens_per_second is None
    with pytest.raises(ValueError, match="no sequences of tokens"):
        images.seconds_for(1)
    with pytest.raises(ValueError, match="tokens=0 is not a positive number"):
        gpt3().seconds_for(0)


# Evaluation and clipping


def dropping(mesh):
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4))


PAIR = np.ones((1, 8), "f4"), np.ones((1,), "i8")


def test_evaluation_takes_the_forward_calls_of_a_model_that_evaluates_and_the_score():
    """No random numbers of dropout, no statistics of a batch, nothing kept and nothing updated."""
    p = simulate(dropping, Plan(), cluster(PerCall(1.0)), 8, example=PAIR)
    prepared = prepare(dropping, Plan(), 8, example=PAIR)
    (infer,) = [i for i in prepared.evaluation[0].step if isinstance(i, I.Infer)]
    calls = prepared.costs.calls(infer)
    drops = {c.name for c in prepared.profile.blocks[2].forward}
    assert drops and not drops & {c.name for c in calls}
    assert list(calls) == [c for block in prepared.profile.blocks for c in block.infer]
    moving = [c for c in (*calls, *prepared.profile.score) if c.bytes_read + c.bytes_written]
    assert p.evaluation_seconds == len(moving) + 2  # the samples and their labels are loaded
    assert 0 < p.evaluation_seconds < p.step_seconds


def test_statistics_are_sent_round_once_before_evaluation_and_not_with_each_batch():
    plan = Plan(data=2)
    prepared = prepare(dropping, plan, 8, example=PAIR)
    assert [type(i) for i in prepared.evaluation[0].prologue] == [I.BroadcastStatistics]
    assert not any(isinstance(i, I.BroadcastStatistics) for i in prepared.evaluation[0].step)
    assert prepare(MLP, plan, 8).evaluation[0].prologue == ()  # it has none
    network = links(alpha=1.0, bandwidth=1e12)
    alone, several = (
        simulate(dropping, p, cluster(PerCall(1.0), network), 8 * p.data, example=PAIR) for p in (Plan(), plan)
    )
    sums = 2 * 1.0 + 32 / 1e12  # around the ring and back: the totals of the batch
    nbytes = prepared.costs.payload_bytes(I.BroadcastStatistics(0))
    sent = network.collective_seconds("broadcast", (0, 1), nbytes, 2)
    assert sent > 0 and several.evaluation_seconds == pytest.approx(alone.evaluation_seconds + sent + sums)


@pytest.mark.parametrize(
    "plan", [Plan(tensor=2), Plan(pipeline=2, micro_batches=2), Plan(data=2, sharding="optimizer")], ids=str
)
def test_clipping_adds_the_reduction_of_the_norm_to_the_step(plan):
    where = cluster(PerCall(1e-3), links(alpha=1.0, bandwidth=1e12))
    free, clipped = (simulate(MLP, plan, where, 8, clip_norm=norm) for norm in (None, 1.0))
    for step in clipped.trace.steps():
        norms = [e for e in step.events if e.name == "reduce norm"]
        assert [e.rank for e in norms] == clipped.trace.ranks and {e.lane for e in norms} == {COLLECTIVES}
        assert [e.end - e.start for e in norms] == pytest.approx([2 * 1.0 + 8 / 1e12] * len(norms))
    assert not [e for e in free.trace.events if e.name == "reduce norm"]
    assert clipped.step_seconds == pytest.approx(free.step_seconds + 2.0)
    with pytest.raises(ValueError, match="clip_norm=0 is not a positive number"):
        simulate(MLP, plan, where, 8, clip_norm=0)


def test_the_first_step_takes_no_longer_than_those_that_wait_for_a_gather():
    where = cluster(PerCall(1e-3), links(alpha=1.0))
    sharded, whole = (simulate(MLP, Plan(data=2, sharding=s), where, 8) for s in ("optimizer", "none"))
    assert sharded.first_step_seconds == pytest.approx(sharded.step_seconds - 1.0, rel=1e-3)
    assert whole.first_step_seconds == pytest.approx(whole.step_seconds)
    assert [step.ranks for step in sharded.trace.steps()] == [[0], [0]]


# Arguments


def fails(match, build=MLP, plan=None, batch_size=8):
    with pytest.raises(ValueError, match=match) as caught:
        simulate(build, plan or Plan(), cluster(), batch_size)
    assert "\n" not in str(caught.value)


def test_arguments_that_do_not_fit_together_are_refused_in_one_sentence():
    fails(
        "batch_size 10 is not divisible by data=2 × micro_batches=4", plan=Plan(data=2, micro_batches=4), batch_size=10
    )
    fails("batch_size=0 is not a whole number", batch_size=0)
    fails("pipeline=9 needs at least 9 blocks, the model has 4", plan=Plan(pipeline=9))
    fails("data 65 needs 65 devices, by hand has 64", plan=Plan(data=65), batch_size=65)
    fails("out_features=128 is not divisible by tensor=3", plan=Plan(tensor=3))
    fails("carries no example input: give one, as example=", build=lambda mesh: nn.Linear(4, 2))


def test_a_model_instead_of_a_builder_is_refused():
    with pytest.raises(TypeError, match="given as a builder, .*not as a int"):
        simulate(3, Plan(), cluster(), 8)
    with pytest.raises(TypeError, match="the builder returned a str, not a minidl.nn.Module"):
        simulate(lambda mesh: "model", Plan(), cluster(), 8)


def test_more_ranks_than_cores_are_simulated_where_processors_are_shared():
    here = cluster(devices=2, cores=2)
    two, four = (simulate(MLP, Plan(data=n), here, 8) for n in (2, 4))
    assert four.step_seconds == pytest.approx(2 * two.step_seconds)


def test_what_is_no_plan_no_cluster_or_no_example_is_refused():
    build, where = models.builder("mlp-digits"), cluster()
    with pytest.raises(TypeError, match="plan must be a Plan, not a dict"):
        simulate(build, {"data": 2}, where, 16)
    with pytest.raises(TypeError, match="cluster must be a Cluster .*, not a str"):
        simulate(build, Plan(), "dgx-a100", 16)
    with pytest.raises(TypeError, match="edit must be a function that returns the Program it changed, not a NoneType"):
        simulate(build, Plan(), where, 16, edit=lambda program: None)
    other = simulate(build, Plan(data=2, micro_batches=2), where, batch_size=8).program
    with pytest.raises(ValueError, match="edit must return the Program that it is given, edited: <Program .* another"):
        simulate(build, Plan(data=2), where, batch_size=8, edit=lambda program: other.without(0, 1))
    with pytest.raises(TypeError, match="edit must be a function of a Program, not 3"):
        simulate(build, Plan(), where, 16, edit=3)
    with pytest.raises(TypeError, match="example must be a pair"):
        simulate(build, Plan(), where, 16, example=3)
