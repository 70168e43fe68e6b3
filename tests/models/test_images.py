"""The image classifiers: each learns the digits, enlarged to the pixels it needs."""

from functools import partial

import minidl
from minidl import models, optim
from tests.models.learning import digits_accuracy, enlarged


def test_lenet_reads_the_digits():
    minidl.manual_seed(0)
    model = models.lenet()
    adam = optim.Adam(model.parameters(), lr=0.003)
    assert digits_accuracy(model, 4, partial(enlarged, times=3, border=2), optimizer=adam) >= 0.95


def test_a_narrow_alexnet_reads_the_digits():
    minidl.manual_seed(0)
    model = models.alexnet(1, 64, 10, widths=(8, 16, 24, 16, 16), hidden=64, dropout=0.1)
    adam = optim.Adam(model.parameters(), lr=0.003)
    assert digits_accuracy(model, 18, partial(enlarged, times=8), optimizer=adam) >= 0.9


def test_a_narrow_vgg_reads_the_digits():
    minidl.manual_seed(0)
    model = models.vgg(11, 1, 32, 10, width=8, hidden=64, dropout=0.1)
    adam = optim.Adam(model.parameters(), lr=0.002)
    assert digits_accuracy(model, 3, partial(enlarged, times=4), optimizer=adam) >= 0.85
