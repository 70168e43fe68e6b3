"""The reference workloads of `bench train` in minidl: each function builds one and gives the function of a step.

A step is forward, backward and the optimizer's update, on fixed synthetic data in float32. `torch_workloads.py` has the
same for PyTorch.
"""

from collections.abc import Callable

import numpy as np

import minidl
from minidl import models, nn, optim
from minidl.bench.inputs import CHAIN, arrays, classes
from minidl.models.resnet import BasicBlock

DESCRIPTIONS = {
    "W1": "MLP 784-1024-1024-10, batch 128, SGD with momentum",
    "W2": "CNN conv32-pool-conv64-pool-conv64-dense64-dense10 on 3×32×32, batch 64, Adam",
    "W3": "LSTM 28→128, 28 steps, batch 128, SGD",
    "W4": "GPT, 4 layers of 128, 4 heads, sequence 128, vocabulary 256, batch 16, AdamW",
    "W5": f"a chain of {CHAIN:,} ops on 10 elements, forward and backward",
    "W6": "ResNet block 3×3, 64 channels of 32×32, batch 32, batch norm, SGD",
}


def _training(model: nn.Module, optimizer: optim.Optimizer, x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    loss_of, x, y = nn.CrossEntropyLoss(), minidl.tensor(x), minidl.tensor(y)

    def step():
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def w1():
    model = models.mlp((784, 1024, 1024, 10))
    (x,) = arrays((128, 784))
    return _training(model, optim.SGD(model.parameters(), lr=0.01, momentum=0.9), x, classes(10, 128))


def w2():
    model = models.cifar_cnn()
    (x,) = arrays((64, 3, 32, 32))
    return _training(model, optim.Adam(model.parameters()), x, classes(10, 64))


def w3():
    model = models.lstm_classifier()
    (x,) = arrays((128, 1, 28, 28))
    return _training(model, optim.SGD(model.parameters(), lr=0.01), x, classes(10, 128))


def w4():
    model = models.builder("gpt-tiny")()
    text = classes(256, 16, 129)
    return _training(model, optim.AdamW(model.parameters()), text[:, :-1], text[:, 1:])


def w5():
    x, change, offset = (minidl.tensor(a) for a in arrays((10,), (10,), (10,)))
    scale = 1 + change * 1e-3  # so that 500 products stay finite
    x.requires_grad_()

    def step():
        y = x
        for _ in range(CHAIN // 2):
            y = y * scale
            y = y + offset
        y.backward(offset)

    return step


def w6():
    model = BasicBlock(64, 64)
    x, upstream = (minidl.tensor(a) for a in arrays((32, 64, 32, 32), (32, 64, 32, 32)))
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    x.requires_grad_()  # as a block inside a network has it

    def step():
        optimizer.zero_grad()
        x.grad = None
        model(x).backward(upstream)
        optimizer.step()

    return step


BUILD = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W6": w6}
