"""Losses are sums and weights, however the batch is cut."""

import numpy as np
import pytest

import minidl
from minidl import nn

LOGITS = np.random.default_rng(0).standard_normal((7, 3, 5), np.float32)
TARGET = np.random.default_rng(1).integers(5, size=(7, 3))


def test_the_sums_and_weights_of_parts_give_the_loss_of_the_whole():
    loss = nn.CrossEntropyLoss()
    whole = loss(minidl.tensor(LOGITS), minidl.tensor(TARGET)).item()
    parts = [
        loss.sum_and_weight(minidl.tensor(LOGITS[part]), minidl.tensor(TARGET[part]))
        for part in (slice(0, 2), slice(2, 2), slice(2, 7))
    ]
    assert [weight for _, weight in parts] == [6, 0, 15]
    assert sum(total.item() for total, _ in parts) / 21 == pytest.approx(whole, rel=1e-6)


def test_language_model_logits_equal_those_reshaped_to_rows():
    loss = nn.CrossEntropyLoss()
    rows = loss(minidl.tensor(LOGITS.reshape(21, 5)), minidl.tensor(TARGET.reshape(21)))
    assert loss(minidl.tensor(LOGITS), minidl.tensor(TARGET)).item() == rows.item()


def test_the_mean_squared_error_is_the_mean_of_squares():
    a, b = minidl.tensor([[1.0, 2.0]]), minidl.tensor([[3.0, 5.0]])
    assert nn.MSELoss()(a, b).item() == 6.5
    assert nn.MSELoss().sum_and_weight(a, b)[1] == 2
    with pytest.raises(ValueError, match=r"\(1, 2\), the target \(2,\)"):
        nn.MSELoss()(a, minidl.ones(2))


def test_the_weight_is_known_on_meta():
    with minidl.device("meta"):
        total, weight = nn.CrossEntropyLoss().sum_and_weight(minidl.ones(4, 3), minidl.zeros(4, dtype="int64"))
    assert total.shape == () and weight == 4
