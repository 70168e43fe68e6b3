"""Whoever has a part of a sequence draws the part of the mask that whoever has all of it draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import random
from minidl.kernels.cpu.dropout import random_mask
from minidl.parallel.sequence import positions


def mask(scope, shape, p=0.3):
    with random.scope(scope):
        return random_mask(shape, p)


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 3, 5, 64, 1024]), st.integers(1, 3))
def test_the_ranks_of_a_context_draw_the_parts_of_one_mask(chunk, size, width, samples):
    sequence, names = 2 * size * chunk, np.arange(5, 5 + samples)
    whole = mask(random.Scope(1, 2, names, 3), (samples, sequence, width))
    for rank in range(size):
        own = positions(sequence, rank, size)
        part = mask(random.Scope(1, 2, names, 3, positions=own), (samples, len(own), width))
        np.testing.assert_array_equal(part, whole[:, own])


@pytest.mark.parametrize("context", [1, 2])
@pytest.mark.parametrize("width", [3, 513])
def test_a_slice_of_a_part_is_the_slice_of_its_mask(context, width):
    names, sequence, ranks = np.arange(4), 24, 3
    whole = mask(random.Scope(1, 2, names), (4, sequence, width))
    for place in range(context):
        own = positions(sequence, place, context)
        for rank in range(ranks):
            length = len(own) // ranks
            with random.scope(random.Scope(1, 2, names, positions=own if context > 1 else None)):
                with random.slice_of_sequence(rank, ranks, length):
                    part = random_mask((4, length, width), 0.3)
            np.testing.assert_array_equal(part, whole[:, own[rank * length : (rank + 1) * length]])


def test_a_mask_of_another_length_than_the_part_is_refused():
    with random.scope(random.Scope(0, 0, np.arange(2), positions=np.arange(4))):
        with pytest.raises(ValueError, match=r"a mask over shape \(2, 5\), of whose second dimension there are 4"):
            random.uniform((2, 5))
