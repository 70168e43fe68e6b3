"""Losses, with PyTorch's names and arguments: classes here, functions in `minidl.nn.functional`.

A loss is a sum over targets and the weight that divides it to the mean, so that a batch may be computed in parts: the
loss of a batch is the sum of the parts' sums over the sum of their weights, however the batch was cut.
"""

from minidl.nn.losses.binary import BCELoss, BCEWithLogitsLoss, FocalLoss
from minidl.nn.losses.boxes import GIoULoss, IoULoss
from minidl.nn.losses.classification import CrossEntropyLoss, KLDivLoss, NLLLoss
from minidl.nn.losses.loss import Loss
from minidl.nn.losses.regression import HuberLoss, L1Loss, MSELoss, SmoothL1Loss
from minidl.nn.losses.similarity import CosineEmbeddingLoss, TripletMarginLoss
