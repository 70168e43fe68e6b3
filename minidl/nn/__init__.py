"""Layers, losses and initialisation, with PyTorch's names and arguments."""

from minidl.nn import functional, init
from minidl.nn.layers import (
    GELU,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    Linear,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.nn.losses import CrossEntropyLoss, Loss, MSELoss
from minidl.nn.module import Module, Parameter, Sequential, Shard
from minidl.nn.normalization import LayerNorm
from minidl.nn.pooling import MaxPool2d
