"""Embedding tables with a padding row."""

import numpy as np
import pytest

import minidl
from minidl import nn

INDICES = np.array([[0, 2, 4], [4, 4, 1]])


@pytest.mark.parametrize("padding_idx", [None, 4, -2])
def test_values_and_gradients_are_those_of_pytorch(padding_idx):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    other = torch.nn.Embedding(6, 3, padding_idx)
    mine = nn.Embedding(6, 3, padding_idx)
    mine.load_state_dict({name: value.numpy() for name, value in other.state_dict().items()})
    out, expected = mine(minidl.tensor(INDICES)), other(torch.tensor(INDICES))
    np.testing.assert_array_equal(out.numpy(), expected.detach().numpy())
    grad = np.random.default_rng(0).standard_normal(out.shape, np.float32)
    out.backward(minidl.tensor(grad))
    expected.backward(torch.tensor(grad))
    np.testing.assert_allclose(mine.weight.grad.numpy(), other.weight.grad.numpy(), rtol=1e-6)


def test_the_padding_row_starts_at_zero_and_gets_no_gradient_even_of_infinity():
    table = nn.Embedding(5, 2, padding_idx=-1)
    assert not table.weight.numpy()[4].any() and table.weight.numpy()[:4].all()
    table(minidl.tensor(INDICES)).backward(minidl.full((2, 3, 2), np.inf))
    assert not table.weight.grad.numpy()[4].any()


def test_a_padding_row_outside_the_table_is_refused():
    with pytest.raises(ValueError, match="padding_idx=5 is no row of a table of 5"):
        nn.Embedding(5, 2, padding_idx=5)
