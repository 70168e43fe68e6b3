"""What stands between ops and the kernels of a device sees every call, and is gone afterwards."""

import numpy as np
import pytest

import minidl
from minidl import kernels
from minidl.kernels import cpu, interposed, meta


def counting(calls):
    def replace(name, kernel):
        if not callable(kernel):
            return kernel

        def counted(*args):
            calls.append(name)
            return kernel(*args)

        return counted

    return replace


def test_each_call_of_ops_and_of_creation_goes_through_forward_and_backward():
    calls = []
    with interposed(np.ndarray, counting(calls)):
        x = minidl.tensor([1.0, 2.0], requires_grad=True)
        (x * x).sum().backward()
        assert x.device == "cpu"
    assert [name for name in calls if name in ("array", "multiply", "sum")] == [
        "array", "multiply", "sum", "multiply", "multiply",
    ]  # fmt: skip
    before = len(calls)
    minidl.ones(2) * 2.0
    assert len(calls) == before


def test_several_stand_in_a_row_and_an_error_puts_the_kernels_back():
    outer, inner = [], []
    with pytest.raises(ZeroDivisionError), interposed(np.ndarray, counting(outer)):
        with interposed(np.ndarray, counting(inner)):
            minidl.ones(2) * minidl.ones(2)
        minidl.ones(2).exp()
        1 / 0  # noqa: B018
    assert inner == ["full", "full", "multiply"] and outer == [*inner, "full", "exp"]
    assert kernels.BY_ARRAY[np.ndarray] is kernels.BY_DEVICE["cpu"] is cpu


def test_a_device_is_predicted_in_the_block_alone():
    with kernels.predicting("cuda"):
        assert kernels.for_device("meta").WIDEST_IN_TILES == 512 and minidl.zeros(1, device="meta").device == "meta"
    assert kernels.for_device("meta") is meta
