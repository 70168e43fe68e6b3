"""Optimizers, with PyTorch's names and arguments, and schedules of the learning rate."""

from minidl.optim import lr_scheduler, lr_schedules
from minidl.optim.adadelta import Adadelta
from minidl.optim.adafactor import Adafactor
from minidl.optim.adagrad import Adagrad
from minidl.optim.adam import Adam, AdamW, NAdam
from minidl.optim.average import ExponentialMovingAverage
from minidl.optim.layerwise import LAMB, LARS
from minidl.optim.lion import Lion
from minidl.optim.muon import Muon
from minidl.optim.optimizer import Optimizer
from minidl.optim.rmsprop import RMSprop
from minidl.optim.sgd import SGD
