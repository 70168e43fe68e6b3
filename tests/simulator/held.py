"""What the workers of a training hold, against what is predicted."""

import numpy as np

from minidl import nn, optim
from minidl.parallel import train
from minidl.storage import NUMBER
from simulator import simulate
from tests.simulator.hand_made import cluster

BATCH_SIZE, STEPS = 64, 3


def momentum(parameters):
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


def check_memory(build, dataset, plan, optimizer=momentum, batch_size=BATCH_SIZE, loss=None):
    """Both say the same of the fullest worker, byte for byte; the measured bytes relative to the predicted ones.

    In a pipeline a message may come before its place in the list, or wait to be taken: up to one for each micro-batch.
    """
    settings = dict(optimizer=optimizer, loss=loss or nn.CrossEntropyLoss())
    run = train(build, dataset, plan, batch_size=batch_size, steps=STEPS, timeout=120, **settings)
    prediction = simulate(build, plan, cluster(cores=2), batch_size, example=dataset[np.arange(1)], **settings)
    program = prediction.program
    messages = [i for rank in range(plan.workers) for i in program[rank].step if i.kind in ("send", "receive")]
    early = plan.micro_batches * max(map(program.costs.payload_bytes, messages), default=0)
    assert early == 0 or plan.pipeline > 1
    label = NUMBER if batch_size == plan.data * plan.micro_batches else 0  # a single one is not looked at
    least, most = prediction.memory_bytes - label, prediction.memory_bytes + early
    assert least <= run.memory_bytes <= most, (least, run.memory_bytes, most)
    return run.memory_bytes / prediction.memory_bytes
