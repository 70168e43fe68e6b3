"""Pools are PyTorch's, over random shapes, layouts, options and values that are not finite."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Row, compare, torch

from minidl import ops

F = torch.nn.functional


def inputs(d, spatial, low=1):
    """([batch], channels, *size), an empty batch among them."""
    return d.floats(*d.pick((), (d.size(),)), d.size(1), *[d.int(low, 8) for _ in range(spatial)])


def each(d, spatial, draw):
    """One number for all dimensions, or one for each."""
    return d.pick(draw(), tuple(draw() for _ in range(spatial)))


def pool(spatial, **options):
    def draw(d):
        kernel = d.int(1, 4)
        given = {
            "stride": d.pick(None, each(d, spatial, lambda: d.int(1, 3))),
            "padding": each(d, spatial, lambda: d.int(0, kernel // 2)),
            "ceil_mode": d.flip(),
            **{name: values(d) for name, values in options.items()},
        }
        # A dilated window may miss a dimension of one element: PyTorch then gives the gradient to another.
        return inputs(d, spatial, low=2 if "dilation" in given else 1), kernel, given

    return draw


def adaptive(spatial):
    def draw(d):
        one, other = d.int(1, 9), d.int(1, 9)
        sizes = d.pick(one, (one, other), (None, other), (one, None)) if spatial == 2 else one
        return inputs(d, spatial), sizes

    return draw


ROWS = [
    Row("max_pool1d", ops.max_pool1d, F.max_pool1d, pool(1, dilation=lambda d: d.int(1, 2)), special=True),
    Row("max_pool2d", ops.max_pool2d, F.max_pool2d,
        pool(2, dilation=lambda d: each(d, 2, lambda: d.int(1, 2))), special=True),
    Row("avg_pool1d", ops.avg_pool1d, F.avg_pool1d, pool(1, count_include_pad=lambda d: d.flip()), special=True),
    Row("avg_pool2d", ops.avg_pool2d, F.avg_pool2d, pool(2, count_include_pad=lambda d: d.flip()), special=True),
    Row("adaptive_avg_pool1d", ops.adaptive_avg_pool1d, F.adaptive_avg_pool1d, adaptive(1), special=True),
    Row("adaptive_avg_pool2d", ops.adaptive_avg_pool2d, F.adaptive_avg_pool2d, adaptive(2), special=True),
    Row("adaptive_max_pool2d", ops.adaptive_max_pool2d, F.adaptive_max_pool2d, adaptive(2), special=True),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
@settings(max_examples=25)
@given(data=st.data())
def test_a_pool_is_that_of_pytorch(row, data):
    compare(row, data.draw)
