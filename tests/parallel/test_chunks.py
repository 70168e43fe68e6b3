"""A stage may hold several chunks: every reader of a program goes by an instruction's chunk, not its rank's stage."""

import numpy as np
import pytest

from minidl import data, nn, optim
from minidl.parallel import Plan, check, train
from simulator import simulate
from tests.parallel.plans import promised_peak
from tests.simulator.hand_made import PerCall, cluster, links

pytestmark = pytest.mark.usefixtures("warm_workers")

DIGITS = data.digits()[0]


def build(mesh):
    sizes = (64, 32, 24, 20, 16, 10)
    layers = [nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)]
    return nn.Sequential(nn.Flatten(), *(block for layer in layers for block in (layer, nn.ReLU())))


def sgd(parameters):
    return optim.SGD(parameters, lr=0.3, momentum=0.9)


OPTIONS = dict(optimizer=sgd, loss=nn.CrossEntropyLoss(), batch_size=96)
PLANS = [
    Plan(pipeline=2, chunks=2, micro_batches=3, schedule="gpipe"),
    Plan(pipeline=2, chunks=2, micro_batches=2, schedule="naive"),
    Plan(data=2, pipeline=2, chunks=2, micro_batches=2, schedule="gpipe", sharding="optimizer", bucket_mb=0.002),
    Plan(pipeline=2, chunks=2, micro_batches=4, schedule="interleaved"),
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_stages_of_two_chunks_train_as_one_worker_does_and_are_simulated_by_the_same_list(plan):
    alone = train(build, DIGITS, Plan(), steps=5, dtype="float64", **OPTIONS)
    run = train(build, DIGITS, plan, steps=5, dtype="float64", timeout=60, **OPTIONS)
    assert run.program.layout.stages == ((0, 2), (1, 3))
    np.testing.assert_allclose(run.losses, alone.losses, rtol=1e-10)
    for name, value in alone.state_dict().items():
        np.testing.assert_allclose(run.state_dict()[name], value, rtol=1e-7, atol=1e-10)
    where = cluster(PerCall(1e-5), links(), cores=2)
    prediction = simulate(build, plan, where, example=DIGITS[np.arange(1)], **OPTIONS)
    assert [prediction.program[r] for r in range(plan.workers)] == [run.program[r] for r in range(plan.workers)]
    assert "Forward chunk 2 0" in str(run.program[0])
    for rank, peak in check(prediction.program).peak_micro_batches.items():
        assert peak == promised_peak(plan, plan.mesh(rank).coordinate("pipeline"))
    assert len({memory.parameters for memory in prediction.memory}) == 2
    assert sum(memory.parameters for memory in prediction.memory) >= 8 / 2 * sum(
        value.size for value in alone.state_dict().values()
    )
