"""Layers, losses and initialisation, with PyTorch's names and arguments."""

from minidl.nn import functional, init
from minidl.nn.layers import (
    GELU,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    LayerNorm,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.nn.losses import CrossEntropyLoss, Loss, MSELoss
from minidl.nn.module import Module, Parameter, Sequential, Shard
