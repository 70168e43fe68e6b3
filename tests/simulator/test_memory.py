"""memory.py and the prediction's memory: closed forms. What was measured is held to it in test_memory_measured.py."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import models, nn, optim
from minidl.kernels.meta import MetaArray
from minidl.parallel import Plan
from minidl.parallel import instructions as I
from minidl.parallel.instructions import buffers as B
from minidl.parallel.memory import memory_over_step, peak_memory
from minidl.parallel.prepare import prepare
from simulator import simulate
from tests.simulator.hand_made import cluster, roofline

SIZES = (64, 48, 32, 24, 10)
PARAMETERS = [a * b + b for a, b in pairwise(SIZES)]
LINE = 16  # elements, of which the flat array of a bucket's gradients is a multiple
GRADIENTS = math.ceil(sum(PARAMETERS) / LINE) * LINE


def predict(plan, batch_size, precision="float32", optimizer=optim.Adam, schedule=None):
    plan = replace(plan, precision=precision)
    return simulate(lambda mesh: models.mlp(SIZES, mesh), plan, cluster(roofline()), batch_size, optimizer=optimizer)


def sgd(parameters):
    return optim.SGD(parameters, lr=0.1)


def momentum(parameters):
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


STATES = [(sgd, 0), (momentum, 1), (optim.Adam, 2), (optim.Lion, 1), (optim.LAMB, 2)]


@pytest.mark.parametrize(("optimizer", "states"), STATES)
def test_an_optimizer_keeps_its_states_for_every_parameter(optimizer, states):
    (memory,) = predict(Plan(), 8, optimizer=optimizer).memory
    assert memory.parameters == 4 * sum(PARAMETERS)
    assert memory.gradients == 4 * GRADIENTS
    assert memory.optimizer == states * 4 * sum(PARAMETERS)


def test_in_mixed_precision_a_parameter_and_its_adam_take_sixteen_bytes():
    """2 + 2 of the parameter and its gradient, 4 of the master, 8 of Adam (Rajbhandari et al. 2020, section 3.1)."""
    (memory,) = predict(Plan(), 8, "bfloat16").memory
    assert memory.parameters == 2 * sum(PARAMETERS)
    assert memory.gradients == 2 * GRADIENTS
    assert memory.optimizer == 12 * sum(PARAMETERS)
    assert memory.total - memory.activations == pytest.approx(16 * sum(PARAMETERS), rel=1e-3)


def test_activations_are_what_layers_keep_for_backward_for_each_sample():
    """A linear layer keeps its input, a ReLU its output, which is the next one's input: every size but the last.

    Most is held at the loss, which has the output, its gradient and the labels beside them.
    """
    (memory,) = predict(Plan(), 8).memory
    assert memory.activations == 4 * 8 * (sum(SIZES[:-1]) + 2 * SIZES[-1]) + 8 * 8


def test_activations_grow_with_the_batch_and_are_half_as_large_in_half_precision():
    (memory,) = predict(Plan(), 8).memory
    assert predict(Plan(), 32).memory[0].activations == 4 * memory.activations
    labels = 8 * 8  # which are whole numbers in any precision
    assert predict(Plan(), 8, "bfloat16").memory[0].activations == (memory.activations - labels) / 2 + labels


def test_every_replica_holds_the_whole_and_every_tensor_rank_its_share():
    assert predict(Plan(data=4), 32).memory == predict(Plan(), 8).memory
    # Split over two ranks: the matrices, and the biases of column-parallel layers.
    (half,) = predict(Plan(tensor=2), 8).memory
    matrices = sum(a * b for a, b in pairwise(SIZES))
    assert half.parameters == 4 * (matrices / 2 + 48 / 2 + 32 + 24 / 2 + 10)


def test_replicas_that_share_the_optimizer_each_keep_their_part_of_it():
    """Rajbhandari et al. 2020, figure 1: of 16 bytes a parameter, 4 + 12 / replicas.

    All shares have the same number of elements, a multiple of 16.
    """
    (whole,), (shared,) = (
        predict(Plan(data=4, sharding=sharding), 32, "bfloat16").memory for sharding in ("none", "optimizer")
    )
    share = math.ceil(sum(PARAMETERS) / 4 / LINE) * LINE
    assert shared.optimizer == 12 * share == pytest.approx(whole.optimizer / 4, rel=0.01)
    assert shared.parameters == shared.gradients == 2 * 4 * share == pytest.approx(whole.parameters, rel=0.01)
    assert shared.activations == whole.activations


@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from(["naive", "gpipe", "1f1b"]))
@settings(max_examples=25)
def test_a_schedule_decides_how_many_micro_batches_are_kept(p, m, schedule):
    """Beside them: the gradient that comes back, or what a forward takes and gives; at the end outputs and labels."""
    prediction = predict(Plan(pipeline=p, micro_batches=m, schedule=schedule), 8 * m)
    chunks = prediction.program.layout.chunks
    sizes = (*SIZES[:1] * 2, *np.repeat(SIZES[1:-1], 2), SIZES[-1])  # flattened, then each layer and its ReLU
    array = [4 * 8 * size for size in sizes]  # bytes before each block
    for stage, (memory, (start, end)) in enumerate(zip(prediction.memory, chunks, strict=True)):
        kept = {"naive": 1, "gpipe": m, "1f1b": min(p - stage, m)}[schedule]
        # A linear layer has an odd place, and keeps what it takes; a ReLU, what it gives; to flatten keeps nothing.
        places = {k + (k % 2 == 0) for k in range(max(start, 1), end)}
        saved, taken = sum(array[k] for k in places), array[start] * (start > 0 and start not in places)
        if stage == p - 1:
            expected = kept * (saved + array[-1]) + max(array[-1] + 8 * 8, taken)
        else:
            expected = kept * saved + max(array[end], taken + array[end] * (end not in places))
        assert memory.activations == expected
    assert sum(memory.parameters for memory in prediction.memory) == 4 * sum(PARAMETERS)
    assert prediction.memory_bytes == max(memory.total for memory in prediction.memory)


def test_a_model_fits_up_to_the_last_byte_of_a_device():
    prediction = predict(Plan(), 8)
    where = prediction.cluster
    assert prediction.fits
    need = prediction.memory_bytes
    assert replace(prediction, cluster=replace(where, memory_bytes=need)).fits
    assert not replace(prediction, cluster=replace(where, memory_bytes=need - 1)).fits


def test_a_transformer_block_keeps_what_korthikanti_counts():
    """Korthikanti et al. 2022, section 4.1: s b h (34 + 5 a s / h) bytes, of which dropout takes 2 and 3 a s / h."""
    s, b, h, a = 32, 3, 64, 4
    build = lambda mesh: nn.Sequential(*models.gpt(2, h, a, 128, s, mesh).blocks[1:3])  # noqa: E731
    example = MetaArray((1, s, h), "float32"), MetaArray((1, s), "int64")
    (memory,) = simulate(build, Plan(precision="bfloat16"), cluster(), b, example=example).memory
    per_block, loss = s * b * h * 32 + 2 * a * s * s * b, 2 * (2 * s * b * h)  # the output and its gradient
    # Beside them the means and deviations of two norms, and the labels.
    assert memory.activations == pytest.approx(2 * per_block + loss, rel=0.01)


def test_a_message_is_as_long_as_the_array_and_a_storage_as_large_as_what_it_lies_in():
    """An LSTM gives all but the first of the states that it keeps; what comes last in time is a view of those."""
    b, t, h = 64, 8, 64
    costs = prepare(models.builder("lstm-digits"), Plan(pipeline=4), b).costs
    sent = [costs.payload_bytes(I.SendActivation(chunk, 0, 0, chunk + 1)) for chunk in (1, 2)]
    assert sent == [4 * b * t * h, 4 * b * h]
    assert sent == [costs.payload_bytes(I.RecvActivation(chunk, 0, chunk - 1)) for chunk in (2, 3)]
    assert sent == [costs.payload_bytes(I.SendGradient(chunk, 0, chunk - 1)) for chunk in (2, 3)]
    made, received = (sum(costs.bytes_of(B.activation(*place)).values()) for place in ((1, 0, 0), (2, 0, -1)))
    assert (made, received) == (4 * b * (t + 1) * h, 4 * b * t * h)
    assert costs.bytes_of(B.activation(2, 0, 0)) == costs.bytes_of(B.activation(2, 0, -1))


def test_what_lies_in_one_storage_counts_once():
    """A ReLU keeps its output, which is what the linear layer after it keeps: the same storage, until both are done."""
    prepared = prepare(lambda mesh: models.mlp((64, 48, 32, 10), mesh), Plan(data=2, bucket_mb=0.001), 16)
    assert prepared.costs.layout.buckets == (((0, 3), (3, 5), (5, 6)),)
    first, second, third = (prepared.costs.bytes_of(B.saved(0, 0, b)) for b in range(3))
    assert list(first.values()) == [4 * 8 * 64, 4 * 8 * 48]
    assert list(second.values()) == [4 * 8 * 48, 4 * 8 * 32] and list(third.values()) == [4 * 8 * 32]
    assert len(first.keys() & second.keys()) == len(second.keys() & third.keys()) == 1
    held = {type(i): memory.activations for i, memory in memory_over_step(prepared.training, 0)}
    everything = 4 * 8 * (64 + 48 + 32)
    assert held[I.Forward] == everything + 4 * 8 * 10
    assert held[I.Loss] == everything + 2 * 4 * 8 * 10 + 8 * 8


def test_memory_over_a_step_rises_with_forwards_and_falls_with_backwards():
    """Three micro-batches of GPipe on one device; a backward has used up what it took when it is done."""
    o, s = 4 * 8 * 10, 4 * 8 * sum(SIZES[:-1])  # bytes of an output, and of what a micro-batch keeps
    prepared = prepare(lambda mesh: models.mlp(SIZES, mesh), Plan(micro_batches=3, schedule="gpipe"), 24)
    held = {i.name: memory.activations for i, memory in memory_over_step(prepared.training, 0)}
    for m in range(3):
        assert held[f"input{m}"] == m * (s + o) + 4 * 8 * SIZES[0]
        assert held[f"F{m}"] == m * (s + o) + s + o
        assert held[f"loss{m}"] == m * (s + o) + s + 2 * o + 8 * 8
        assert held[f"B{m}"] == (2 - m) * (s + o)
    assert held["update"] == 8 * 4  # the totals


def test_gradients_of_parameters_stay_from_step_to_step():
    for precision, scale in (("float32", 1.0), ("bfloat16", 0.5)):
        prepared = prepare(lambda mesh: models.mlp(SIZES, mesh), Plan(precision=precision), 8)
        rows = [memory for _, memory in memory_over_step(prepared.training, 0)]
        assert {(m.parameters, m.gradients) for m in rows} == {(scale * 4 * sum(PARAMETERS), scale * 4 * GRADIENTS)}
        master = 4 * sum(PARAMETERS) * (scale < 1)
        assert {m.optimizer for m in rows} == {2 * 4 * sum(PARAMETERS) + master}  # Adam


def test_what_was_found_of_one_plan_is_said_of_another_only_where_it_holds():
    build = models.builder("gpt-tiny", layers=2, hidden=32, heads=2, vocabulary=64, sequence=16)
    for fields in (
        dict(), dict(data=2), dict(data=4), dict(data=2, micro_batches=16), dict(data=2, precision="bfloat16"),
        dict(data=2, sharding="optimizer"), dict(data=4, sharding="optimizer"), dict(data=4, sharding="parameters"),
        dict(pipeline=2, micro_batches=16), dict(pipeline=2, micro_batches=17), dict(pipeline=2, micro_batches=2),
        dict(pipeline=2, micro_batches=16, recompute="full"), dict(tensor=2), dict(tensor=2, data=2),
    ):  # fmt: skip
        plan = Plan(**fields)
        found = simulate(build, plan, cluster(roofline(), devices=8), 4 * plan.data * plan.micro_batches)
        ranks = plan.mesh(0).ranks("pipeline")
        assert found.memory == tuple(peak_memory(found.program, rank) for rank in ranks)
        adam = optim.LAMB if plan.data == 2 else optim.Adam
        other = simulate(
            build, plan, cluster(roofline(), devices=8), 8 * plan.data * plan.micro_batches, optimizer=adam
        )
        assert other.memory == tuple(peak_memory(other.program, rank) for rank in ranks) != found.memory
