"""compute/convolution.py: the products of a convolution, and what it does beyond them; how its times are kept."""

from simulator.compute.convolution import RUN_BYTES, Convolution, convolution
from simulator.compute.timed import timed_as
from tests.simulator.kernel_calls import calls, elementwise, options


def test_the_three_products_of_a_convolution_are_over_its_windows():
    """Images (5, 3, 8, 8), kernel 2 x 3, 4 channels out: windows of the input have runs of 3 * 3 numbers."""
    places = 5 * 7 * 6
    windows = Convolution((1, places, 4, 2 * 9), places * 2 * (4 * 9 + RUN_BYTES))
    forward, backward, of_weight = map(convolution, calls((5, 3, 8, 8), (4, 3, 2, 3), bias=True))
    assert forward == of_weight == windows
    assert backward == Convolution((1, 5 * 64, 3, 2 * 12), 5 * 64 * 2 * (4 * 12 + RUN_BYTES))
    assert convolution(elementwise("relu")) is None


def test_a_convolution_in_groups_is_a_product_for_each_of_them():
    """Images (5, 6, 8, 8) in 3 groups of 2 channels, kernel 2 x 3, 12 channels out: runs of 2 numbers, 4 backward."""
    places, runs = 5 * 7 * 6, 2 * 3 * 3
    windows = Convolution((3, places, 4, 2 * 3 * 2), places * runs * (4 * 2 + RUN_BYTES))
    forward, backward, of_weight = map(convolution, calls((5, 6, 8, 8), (12, 2, 2, 3), chosen=options(groups=3)))
    assert forward == of_weight == windows
    assert backward == Convolution((3, 5 * 64, 2, 2 * 3 * 4), 5 * 64 * runs * (4 * 4 + RUN_BYTES))


def test_large_convolutions_of_3_by_3_are_36_products_over_tiles():
    for call in calls((8, 32, 30, 32), (64, 32, 3, 3), chosen=options(padding=1)):
        found = convolution(call)
        assert call.algorithm == "winograd" and found.rest == 4 * 36 * 8 * 64 * (32 + 64)
        batch, m, n, k = found.product
        assert (batch, m, {n, k}) == (36, 8 * 8 * 8, {32, 64})


def test_other_large_convolutions_are_priced_by_their_flops():
    found = calls((8, 16, 30, 32), (32, 16, 5, 5), chosen=options(padding=2))
    assert [convolution(call) for call in found] == [Convolution((0, 0, 0, 0), call.flops) for call in found]


def test_the_zeros_between_the_elements_of_a_strided_gradient_are_flops_too():
    forward, backward, _ = calls((80, 32, 9, 9), (32, 1, 3, 3), chosen=options(3, 1, groups=32))
    assert convolution(forward).rest == forward.flops and convolution(backward).rest == 9 * backward.flops


def test_the_products_of_a_strided_convolution_are_over_the_places_of_its_gradient():
    forward, backward, _ = map(convolution, calls((5, 3, 9, 9), (4, 3, 2, 3), chosen=options(3)))
    assert forward.product == (1, 5 * 9, 4, 2 * 3 * 3) and backward.product == (1, 5 * 9, 3, 2 * 3 * 4)


def test_the_times_of_a_convolution_are_kept_by_its_algorithm():
    strided = calls((8, 32, 30, 32), (32, 32, 3, 3), chosen=options(2, 1))
    assert [timed_as(call) for call in strided] == [
        "conv2d, direct", "conv2d_grad_input, windows", "conv2d_grad_weight, direct"
    ]  # fmt: skip
    assert timed_as(elementwise("relu")) == "relu"
