"""memory.py and the prediction's memory: closed forms."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import models, nn, optim
from minidl.kernels.meta import MetaArray
from minidl.parallel import Plan
from simulator import simulate
from tests.simulator.hand_made import cluster, roofline

SIZES = (64, 48, 32, 24, 10)
PARAMETERS = [a * b + b for a, b in pairwise(SIZES)]


def predict(plan, batch_size, precision="float32", optimizer=optim.Adam, schedule=None):
    where = cluster(roofline(precision=precision))
    return simulate(lambda mesh: models.mlp(SIZES, mesh), plan, where, batch_size, optimizer=optimizer)


def sgd(parameters):
    return optim.SGD(parameters, lr=0.1)


def momentum(parameters):
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


STATES = [(sgd, 0), (momentum, 1), (optim.Adam, 2), (optim.Lion, 1), (optim.LAMB, 2)]


@pytest.mark.parametrize(("optimizer", "states"), STATES)
def test_an_optimizer_keeps_its_states_for_every_parameter(optimizer, states):
    (memory,) = predict(Plan(), 8, optimizer=optimizer).memory
    assert memory.parameters == memory.gradients == 4 * sum(PARAMETERS)
    assert memory.optimizer == states * 4 * sum(PARAMETERS)


def test_in_mixed_precision_a_parameter_and_its_adam_take_sixteen_bytes():
    """2 + 2 of the parameter and its gradient, 4 of the master, 8 of Adam (Rajbhandari et al. 2020, section 3.1)."""
    (memory,) = predict(Plan(), 8, "bfloat16").memory
    assert memory.parameters == memory.gradients == 2 * sum(PARAMETERS)
    assert memory.optimizer == 12 * sum(PARAMETERS)
    assert memory.total - memory.activations == 16 * sum(PARAMETERS)


def test_activations_are_what_layers_keep_for_backward_for_each_sample():
    """A linear layer keeps its input, a ReLU its output, which is the next one's input: every size but the last."""
    (memory,) = predict(Plan(), 8).memory
    assert memory.activations == 4 * 8 * sum(SIZES[:-1])


def test_activations_grow_with_the_batch_and_are_half_as_large_in_half_precision():
    (memory,) = predict(Plan(), 8).memory
    assert predict(Plan(), 32).memory[0].activations == 4 * memory.activations
    assert predict(Plan(), 8, "bfloat16").memory[0].activations == memory.activations / 2


def test_every_replica_holds_the_whole_and_every_tensor_rank_its_share():
    assert predict(Plan(data=4), 32).memory == predict(Plan(), 8).memory
    # Split over two ranks: the matrices, and the biases of column-parallel layers.
    (half,) = predict(Plan(tensor=2), 8).memory
    matrices = sum(a * b for a, b in pairwise(SIZES))
    assert half.parameters == 4 * (matrices / 2 + 48 / 2 + 32 + 24 / 2 + 10)


def test_replicas_that_share_the_optimizer_each_keep_their_part_of_it():
    """Rajbhandari et al. 2020, figure 1: of 16 bytes a parameter, 4 + 12 / replicas."""
    (whole,), (shared,) = (
        predict(Plan(data=4, sharding=sharding), 32, "bfloat16").memory for sharding in ("none", "optimizer")
    )
    assert shared.optimizer == whole.optimizer / 4 == 3 * sum(PARAMETERS)
    assert replace(shared, optimizer=whole.optimizer) == whole


@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from(["naive", "gpipe", "1f1b"]))
@settings(max_examples=25)
def test_a_schedule_decides_how_many_micro_batches_are_kept(p, m, schedule):
    prediction = predict(Plan(pipeline=p, micro_batches=m, schedule=schedule), 8 * m)
    one = predict(Plan(pipeline=p, micro_batches=1), 8)
    for stage, (memory, single) in enumerate(zip(prediction.memory, one.memory, strict=True)):
        kept = {"naive": 1, "gpipe": m, "1f1b": min(p - stage, m)}[schedule]
        assert memory.activations == kept * single.activations
        assert memory.parameters == single.parameters
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
    (memory,) = simulate(build, Plan(), cluster(roofline(precision="bfloat16")), b, example=example).memory
    per_block = s * b * h * 32 + 2 * a * s * s * b
    # Beside them the means and deviations of two norms.
    assert memory.activations == pytest.approx(2 * per_block, rel=0.02)
