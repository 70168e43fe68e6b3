"""Optimizers, with PyTorch's names and arguments, and schedules of the learning rate."""

from minidl.optim import schedules
from minidl.optim.adam import Adam, AdamW
from minidl.optim.optimizer import Optimizer
from minidl.optim.sgd import SGD
