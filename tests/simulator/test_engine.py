"""engine.py: closed forms of schedules, reductions and tensor parallelism."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import models, nn, optim
from minidl.kernels.meta import MetaArray
from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.collectives import ring_all_reduce_cost
from minidl.parallel.costs import part_of
from minidl.parallel.prepare import prepare
from minidl.parallel.shares import parts
from minidl.trace import COLLECTIVES, COMPUTE
from simulator import simulate
from tests.simulator.hand_made import PerCall, cluster, links, roofline, run

F, B = 2.0, 3.0
WORK = {I.Forward: F, I.Backward: B}
SIZES = st.integers(1, 8)


# Schedules on stages of equal cost


@given(SIZES, SIZES, st.sampled_from(["gpipe", "1f1b"]))
@settings(max_examples=40)
def test_gpipe_and_1f1b_have_the_bubble_of_the_paper(p, m, schedule):
    step, trace = run(Plan(pipeline=p, micro_batches=m, schedule=schedule), WORK)
    assert step == (m + p - 1) * (F + B)
    assert trace.bubble_fraction == pytest.approx((p - 1) / (m + p - 1), abs=1e-12)


@given(SIZES, SIZES, st.sampled_from(["naive", "gpipe", "1f1b"]), st.sampled_from([0.0, 0.5]))
@settings(max_examples=40)
def test_steps_that_follow_one_another_take_as_long_as_the_first(p, m, schedule, update):
    """The first stage goes back last and forward first, so a flush leaves nothing for the next step to overlap with."""
    plan, work = Plan(pipeline=p, micro_batches=m, schedule=schedule), WORK | {I.OptimizerStep: update}
    period, trace = run(plan, work, steps=3)
    assert period == pytest.approx(run(plan, work)[0])
    assert trace.step_seconds == pytest.approx(period)
    assert [begin for begin, _ in trace.windows] == pytest.approx([period, 2 * period])
    assert trace.bubble_fraction == pytest.approx(run(plan, work)[1].bubble_fraction)


@given(st.integers(2, 6), st.integers(1, 3), st.integers(2, 4))
@settings(max_examples=15)
def test_interleaving_divides_the_bubble_by_the_chunks_of_a_stage(p, rounds, v):
    """Narayanan et al. 2021, section 2.2; F and B are those of one of the chunks."""
    m = p * rounds
    for schedule in ("interleaved", "gpipe"):
        step, trace = run(Plan(pipeline=p, micro_batches=m, schedule=schedule, chunks=v), WORK)
        assert step == (m * v + p - 1) * (F + B)
        assert trace.bubble_fraction == pytest.approx((p - 1) / (m * v + p - 1), abs=1e-12)


@given(SIZES, SIZES, st.tuples(*[st.integers(4, 8)] * 3))
@settings(max_examples=25)
def test_halved_backwards_have_the_bubble_of_the_paper(p, more, seconds):
    """Qi et al. 2023, table 2. W may not be so long that a stage is late with what the one before waits for."""
    f, b, w = sorted(seconds, reverse=True)
    m = p + more
    work = {I.Forward: f, I.BackwardInput: b, I.BackwardWeights: w, I.Backward: b + w}
    step, _ = run(Plan(pipeline=p, micro_batches=m, schedule="zero-bubble"), work)
    assert step == m * (f + b + w) + (p - 1) * (f + b - w)
    assert run(Plan(pipeline=p, micro_batches=m), work)[0] == (m + p - 1) * (f + b + w)


@given(SIZES, SIZES)
@settings(max_examples=20)
def test_the_naive_schedule_keeps_one_stage_at_work(p, m):
    step, trace = run(Plan(pipeline=p, micro_batches=m, schedule="naive"), WORK)
    assert step == m * p * (F + B)
    assert trace.bubble_fraction == pytest.approx(1 - 1 / p, abs=1e-12)


@given(st.integers(1, 5), st.integers(1, 6), st.sampled_from(["naive", "gpipe", "1f1b"]))
@settings(max_examples=20)
def test_on_a_core_for_each_rank_the_schedules_take_as_long_as_on_devices(p, m, schedule):
    plan = Plan(pipeline=p, micro_batches=m, schedule=schedule)
    assert run(plan, WORK, cores=p)[0] == pytest.approx(run(plan, WORK)[0])


def test_on_one_core_all_ranks_together_take_the_sum_of_their_work():
    for plan in (Plan(data=3), Plan(pipeline=4, micro_batches=2), Plan(data=2, pipeline=2)):
        step, _ = run(plan, WORK, cores=1)
        assert step == pytest.approx(plan.workers * plan.micro_batches * (F + B))


@pytest.mark.parametrize(("p", "m"), [(2, 1), (2, 3), (2, 6), (4, 1), (7, 1)])
def test_a_message_delays_the_next_stage_by_its_time(p, m):
    """GPipe with sends shorter than the work: each of the two ways through the pipeline has p - 1 of them."""
    sends = {I.SendActivation: 0.5, I.SendGradient: 0.25}
    step, _ = run(Plan(pipeline=p, micro_batches=m, schedule="gpipe"), WORK | sends)
    assert step == pytest.approx((m + p - 1) * (F + B) + (p - 1) * 0.75)


def test_a_lane_is_first_in_first_out_so_a_receive_waits_for_the_send_before_it():
    """The middle stage sends what it made of micro-batch 0 before it takes micro-batch 1, which is there by then."""
    _, trace = run(Plan(pipeline=3, micro_batches=2, schedule="gpipe"), WORK | {I.SendActivation: 0.5})
    lane = {e.name: e for e in trace.events if e.rank == 1}
    assert lane["recv1"].end == lane["send0"].end == lane["F0"].end + 0.5
    assert lane["F1"].start == lane["recv1"].end


# One rank


@given(st.integers(1, 4), st.floats(1e-6, 1e-3))
@settings(max_examples=10)
def test_one_rank_costs_the_sum_of_its_calls(m, seconds):
    compute, plan = PerCall(seconds, instruction_seconds=1e-7), Plan(micro_batches=m)
    prediction = simulate(models.builder("mlp-digits"), plan, cluster(compute), batch_size=8 * m)
    profile = prepare(models.builder("mlp-digits"), plan, 8 * m).profile
    calls = [c for block in profile.blocks for c in block.update]
    for i in range(m):
        calls += profile.loss
        for block in profile.blocks:
            calls += [*block.forward, *(block.accumulate if i else block.backward)]
    instructions = len([i for i in prediction.program[0].step if i.lane == COMPUTE])
    expected = sum(compute.price(c)[0] for c in calls) + 2 * m * seconds + instructions * 1e-7  # two loads each
    assert prediction.step_seconds == pytest.approx(expected)
    assert prediction.breakdown["compute"] == pytest.approx(expected)
    assert prediction.trace.bubble_fraction == pytest.approx(0, abs=1e-12)


# Data parallelism


@pytest.mark.parametrize("n", [2, 4, 8])
def test_a_reduction_on_ring_links_takes_its_closed_form(n):
    alpha, bandwidth = 3e-6, 2e9
    network = links(alpha, bandwidth)
    example = MetaArray((1, 64), "float32"), MetaArray((1,), "int64")
    prediction = simulate(
        lambda mesh: nn.Linear(64, 32), Plan(data=n), cluster(network=network), 8 * n, example=example
    )
    nbytes = 4 * (64 * 32 + 32)
    reductions = [e.end - e.start for e in prediction.trace.events if e.name == "reduce 0"]
    assert reductions == pytest.approx([2 * (n - 1) * alpha + 2 * (n - 1) / n * nbytes / bandwidth] * 2)


def test_in_half_the_precision_gradients_take_half_the_time_and_sums_of_losses_all_of_it():
    where = cluster(network=links(0.0))
    for plan, name in ((Plan(data=2), "reduce 0"), (Plan(pipeline=2), "send0"), (Plan(pipeline=2), "send grad0")):
        full, half = (
            simulate(models.builder("mlp-digits"), replace(plan, precision=precision), where, 8, clip_norm=1.0)
            for precision in ("float32", "float16")
        )
        one, other = ({e.name: e.end - e.start for e in p.trace.of_step(0).events} for p in (full, half))
        assert other[name] == pytest.approx(one[name] / 2) and one[name] > 0
        assert other["reduce loss"] == pytest.approx(one["reduce loss"]) and one["reduce loss"] > 0
    assert other["reduce norm"] == pytest.approx(one["reduce norm"]) and one["reduce norm"] > 0  # of the two stages


@pytest.mark.parametrize("n", [2, 4, 8])
def test_replicas_that_share_the_update_do_a_part_of_it_and_move_the_same_bytes(n):
    """Rajbhandari et al. 2020, section 7.1: what an all-reduce moves, in two halves. Shares are multiples of 16."""
    bandwidth, elements = 2e9, 64 * 96 + 96 + 96 * 10 + 10
    where = cluster(roofline(launch_seconds=0.0), links(0.0, bandwidth))
    whole, shared = (
        on(where, (64, 96, 10), Plan(data=n, sharding=sharding), 8 * n).trace for sharding in ("none", "optimizer")
    )

    def seconds(trace, *names):
        return sum(e.end - e.start for e in trace.of_step(1).events if e.rank == 0 and e.name in names)

    share = 16 * math.ceil(elements / 16 / n)
    half = (n - 1) * 4 * share / bandwidth
    assert seconds(whole, "reduce 0") == pytest.approx(2 * half, rel=0.02)
    assert seconds(shared, "reduce-scatter 0") == pytest.approx(half)
    assert seconds(shared, "gather 0") == pytest.approx(half)
    assert seconds(shared, "update") == pytest.approx(seconds(whole, "update") / n, rel=0.015)


def test_the_parts_of_an_update_add_up_to_the_whole():
    """A kernel whose parameter lies across the border of two parts is called in both; views are made in each."""
    profile = prepare(models.builder("mlp-digits"), Plan(), 8).profile
    parameters = [p for block in profile.blocks for p in block.parameters]
    whole = [call for p in parameters for call in p.update]
    for shares in (1, 2, 3, 7):
        cuts = [parts([p.elements for p in parameters], share, shares) for share in range(shares)]
        made = [[c for p, k in zip(parameters, own, strict=True)
                 for c in part_of(p.update, (k.stop - k.start) / p.elements)] for own in cuts]  # fmt: skip
        for name in ("flops", "bytes_read", "bytes_written"):
            total = sum(getattr(call, name) for call in whole)
            assert sum(getattr(call, name) for own in made for call in own) == pytest.approx(total)
            # Shares are equal but for the last one, which the rounding to whole cache lines leaves shorter.
            first, *others = ([getattr(call, name) for call in own] for own in made)
            assert all(sum(other) <= sum(first) + 1e-6 for other in others)
            assert sum(first) == pytest.approx(total / shares, rel=0.02)
        views = sum(call.bytes_written == 0 for call in whole)
        assert all(sum(call.bytes_written == 0 for call in own) == views for own in made)


def test_a_step_of_a_shared_update_waits_for_the_replica_that_calls_most_kernels():
    plan = Plan(data=3, sharding="optimizer")
    prepared = prepare(models.builder("mlp-digits"), plan, 12, optimizer=sgd)
    (update,) = [i for i in prepared.training[0].step if isinstance(i, I.OptimizerStep)]
    parameters = [p for block in prepared.profile.blocks for p in block.parameters]
    cuts = [parts([p.elements for p in parameters], share, 3) for share in range(3)]
    touched = [sum(k.stop > k.start for k in own) for own in cuts]
    (calls_of_one,) = {len([c for c in p.update if c.bytes_written]) for p in parameters}
    assert len(set(touched)) > 1
    assert len([c for c in prepared.costs.calls(update) if c.bytes_written]) == calls_of_one * max(touched)


def test_reductions_run_beside_the_backward_where_the_network_works_beside_the_device():
    plan, buckets = Plan(data=2), 4
    step, trace = run(plan, WORK | {I.ReduceGradients: 1.0}, buckets)
    assert step == buckets * (F + B) + 1.0  # only the last one is exposed
    assert trace.exposed_communication == pytest.approx(1.0)
    step, _ = run(plan, WORK | {I.ReduceGradients: 5.0}, buckets)
    assert step == buckets * F + B + buckets * 5.0  # the network is the bottleneck


def test_where_the_processors_communicate_reductions_take_their_time_from_the_backward():
    plan, buckets = Plan(data=2), 4
    step, trace = run(plan, WORK | {I.ReduceGradients: 1.0}, buckets, cores=2)
    assert step == pytest.approx(buckets * (F + B + 1.0))
    assert trace.exposed_communication == pytest.approx(buckets * 1.0)


def test_a_collective_waits_for_its_last_member():
    """No reduction begins before the last backward of both replicas."""
    _, trace = run(Plan(data=2, pipeline=2, micro_batches=2), WORK | {I.ReduceGradients: 1.0})
    for rank in trace.ranks:
        own = [e for e in trace.events if e.rank == rank]
        last = max(e.end for e in own if e.name.startswith("B"))
        assert min(e.start for e in own if e.name.startswith("reduce 0")) == last


def test_the_last_to_come_to_a_collective_does_its_share_before_it_computes_on():
    """As the worker does: it gives way to other instructions only where it would have to wait."""
    plan = Plan(pipeline=2, micro_batches=2, schedule="gpipe")
    _, trace = run(plan, WORK | {I.ReduceLoss: 0.25}, cores=2)
    last = {e.name: e for e in trace.events if e.rank == 1}  # the rank that has the losses
    assert last["reduce loss"].start == last["loss1"].end == 3 * F
    assert last["B0"].start == last["reduce loss"].end == 3 * F + 0.25


def test_ranks_that_share_a_core_wait_for_their_turns_after_each_collective_and_message():
    turn = 0.125
    plan, buckets = Plan(data=4), 3
    alone, shared = (run(plan, WORK, buckets, cores=2, turn=t)[0] for t in (0.0, turn))
    collectives = buckets + 1  # and the loss; the reductions of all but the last bucket run beside the backward
    assert alone + turn < shared <= alone + collectives * turn
    assert run(plan, WORK, buckets, cores=4, turn=turn)[0] == run(plan, WORK, buckets, cores=4)[0]
    relay = Plan(pipeline=4, micro_batches=1, schedule="naive")
    assert run(relay, WORK, cores=2, turn=turn)[0] == pytest.approx(4 * (F + B) + 2 * 3 * turn)
    _, trace = run(Plan(data=4), WORK, cores=2, turn=turn)
    assert trace.exposed_communication > 0


# Tensor parallelism


def test_collectives_inside_layers_stop_the_compute_lane_of_their_rank():
    alpha, bandwidth = 1e-3, 1e6
    plan = Plan(tensor=2)
    prediction = simulate(models.builder("mlp-digits"), plan, cluster(PerCall(1e-4), links(alpha, bandwidth)), 16)
    step = prediction.trace.of_step(1)
    inside = [e for e in step.events if e.name == "all_reduce"]
    cost = ring_all_reduce_cost(2, 4 * 16 * 10)  # the sum of the last layer's output; the data needs no gradient
    assert [e.lane for e in inside] == [COLLECTIVES]
    assert inside[0].end - inside[0].start == pytest.approx(cost.steps * alpha + cost.nbytes / bandwidth)
    assert prediction.trace.exposed_communication >= inside[0].end - inside[0].start
    pieces = [e for e in step.events if e.name == "F0"]
    assert [e.lane for e in pieces] == [COMPUTE, COMPUTE]
    assert pieces[0].end == inside[0].start and inside[0].end == pieces[1].start


# The model, and the cluster, make a difference


def sgd(parameters):
    return optim.SGD(parameters, lr=0.1)


def on(where, sizes=(64, 96, 96, 96, 10), plan=None, batch_size=64):
    return simulate(lambda mesh: models.mlp(sizes, mesh), plan or Plan(), where, batch_size, optimizer=sgd)


def test_a_model_without_one_of_its_blocks_takes_less_time_and_less_memory():
    where = cluster(roofline())
    whole = on(where)

    for left_out in (3, 5):  # a hidden layer

        def shorter(mesh, left_out=left_out):
            model = models.mlp((64, 96, 96, 96, 10), mesh)
            part = nn.Sequential(*(b for k, b in enumerate(model.blocks) if k not in (left_out, left_out + 1)))
            part.example = model.example
            return part

        less = simulate(shorter, Plan(), where, 64, optimizer=sgd)
        assert less.step_seconds < whole.step_seconds and less.memory_bytes < whole.memory_bytes
        assert less.flops < whole.flops


@given(st.integers(2, 128), st.integers(1, 64))
@settings(max_examples=25)
def test_a_wider_layer_never_costs_less(width, more):
    where = cluster(roofline())
    narrow, wide = (on(where, (64, w, 10)) for w in (width, width + more))
    assert wide.step_seconds > narrow.step_seconds
    assert wide.memory_bytes > narrow.memory_bytes and wide.flops > narrow.flops


PLANS = (
    Plan(data=4),
    Plan(tensor=4),
    Plan(pipeline=4, micro_batches=4),
    Plan(data=2, tensor=2, pipeline=2, micro_batches=2, schedule="gpipe"),
)


@given(st.sampled_from(PLANS), st.floats(1, 20), st.floats(1, 20), st.floats(1, 20), st.floats(1, 20))
@settings(max_examples=40)
def test_better_links_and_devices_never_make_a_step_slower(plan, node, network, memory, arithmetic):
    slow = cluster(roofline(), links(bandwidth=1e4, slow_bandwidth=2e3, node_devices=2))
    fast = cluster(
        roofline(memory_bandwidth=1000 * memory, matrix_flops=100 * arithmetic),
        links(bandwidth=1e4 * node, slow_bandwidth=2e3 * network, node_devices=2),
    )
    assert on(fast, plan=plan).step_seconds <= on(slow, plan=plan).step_seconds * (1 + 1e-12)
