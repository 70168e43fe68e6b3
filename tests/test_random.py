"""Random words: those that are published, drawn by any counter, and the same wherever they are drawn."""

import warnings
from contextlib import nullcontext

import numba
import numpy as np
import pytest

import minidl
from minidl import philox, random
from minidl.kernels.cpu import fast
from minidl.kernels.cpu.dropout import dropout_grad, random_mask
from minidl.random import Scope

ONES, PI = (0xFFFFFFFF,) * 6, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
KNOWN = {  # the file kat_vectors of Random123, philox4x32 of 10 rounds: counter and key, words
    (0,) * 6: (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ONES: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    PI: (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
}
COMPILED = numba.njit(philox.philox)


@pytest.mark.parametrize("function", [philox.philox, COMPILED], ids=["python", "compiled"])
@pytest.mark.parametrize("given", KNOWN, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_published_words_and_no_warning(given, function):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = function(*map(np.uint32, given))
    assert tuple(map(int, words)) == KNOWN[given]


def test_philox_takes_arrays_of_counters():
    counters = np.array(list(KNOWN), np.uint32).T
    words = philox.philox(*counters)
    assert {word.dtype for word in words} == {np.dtype(np.uint32)}
    assert list(zip(*(word.tolist() for word in words), strict=True)) == list(KNOWN.values())


def test_a_word_gives_the_float32_of_its_upper_24_bits_below_1():
    words = np.array([0, 255, 256, 2**31, 2**32 - 1], np.uint32)
    uniform = philox.uniform(words)
    assert uniform.dtype == np.float32
    assert uniform.tolist() == [0, 0, 2**-24, 0.5, 1 - 2**-24]
    assert [philox.uniform(word) for word in words] == uniform.tolist()


@pytest.mark.parametrize("samples", [[7, 2**32 + 7, -1], None], ids=["in a scope", "outside"])
def test_an_element_can_be_drawn_by_itself_from_what_the_stream_says(samples):
    shape = (3, 2, 5)

    def drawn(function):
        minidl.manual_seed(4)
        if samples is None:
            return function(shape)
        with random.scope(Scope(2**40 + 1, 2**33 + 5, np.array(samples), block=3)):
            return function(shape)

    s, mask = drawn(random.stream), drawn(random.uniform).reshape(-1)
    assert len(s.samples) * s.per_sample == len(mask)
    for i, expected in enumerate(mask):
        row, element = divmod(i, s.per_sample)
        sample = int(s.samples[row]) % 2**64
        counter = element // 4, sample % 2**32, sample >> 32, s.step
        words = philox.philox(*map(np.uint32, counter), *s.key_words)
        assert philox.uniform(words[element % 4]) == expected


@pytest.mark.parametrize("shape", [(40, 64, 32), (40, 2051), (1, 90_002), (90_001, 1), (2, 0)])
@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.1, 1 - 1e-9])
def test_compiled_masks_have_the_bits_of_numpys(shape, keyed, p):
    samples = np.arange(shape[0]) * (2**31 + 1)

    def mask(draw):
        minidl.manual_seed(0)
        with random.scope(Scope(1, 2, samples)) if keyed else nullcontext():
            return draw()

    compiled = mask(lambda: random.drawn(shape, lambda piece, stream: fast.dropout.mask_of(piece, stream, p)))
    np.testing.assert_array_equal(compiled, mask(lambda: random.uniform(shape) >= p))
    assert compiled.shape == shape and compiled.flags.c_contiguous


def test_compiled_dropout_has_the_bits_of_numpys_and_lets_no_nan_disappear():
    x = np.random.default_rng(0).standard_normal((300, 301)).astype(np.float32)
    x[5, 3], x[7, 7] = np.nan, np.inf
    mask = np.random.default_rng(1).random(x.shape) < 0.5
    np.testing.assert_array_equal(dropout_grad(x, mask, 0.3), dropout_grad(x.T, mask.T, 0.3).T)


def test_a_large_mask_belongs_to_the_sample_not_to_its_batch():
    def mask(samples):
        with random.scope(Scope(0, 0, np.asarray(samples))):
            return random_mask((len(samples), 9_001), 0.5)

    whole, order = mask(range(12)), [3, 11, 0, 7, 5]
    np.testing.assert_array_equal(mask(order), whole[order])
    np.testing.assert_array_equal(mask([4]), whole[[4]])


def test_of_each_mask_the_fraction_kept_is_within_5_standard_deviations_and_none_depend_on_each_other():
    """Neighbouring steps, seeds, blocks, masks of a block and samples, of which each two agree by chance alone."""
    p, elements, masks = 0.3, 40_000, []
    for key in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)):
        seed, step, block = key
        with random.scope(Scope(seed, step, np.arange(4), block)):
            masks += [row for _ in range(3) for row in random_mask((4, elements), p)]
    masks = np.array(masks, np.float64)
    kept = masks.mean(1)
    assert np.abs(kept - (1 - p)).max() < 5 * (p * (1 - p) / elements) ** 0.5
    correlations = np.corrcoef(masks)[np.triu_indices(len(masks), 1)]
    assert np.abs(correlations).max() < 5 / elements**0.5
    along = [np.corrcoef(mask[:-lag], mask[lag:])[0, 1] for mask in masks for lag in (1, 2, 3, 4)]
    assert np.abs(along).max() < 5 / elements**0.5


def test_the_uniform_numbers_have_the_mean_the_variance_and_the_bins_of_their_distribution():
    with random.scope(Scope(0, 0, np.arange(100))):
        u = random.uniform((100, 1000)).astype(np.float64)
    assert abs(u.mean() - 1 / 2) < 5 * (1 / 12 / u.size) ** 0.5
    assert abs(u.var() - 1 / 12) < 5 * (1 / 180 / u.size) ** 0.5
    counts, _ = np.histogram(u, 50, (0, 1))
    assert np.abs(counts - u.size / 50).max() < 5 * (u.size / 50) ** 0.5


def test_all_generators_are_counter_based():
    minidl.manual_seed(0)
    for generator in (random.default_generator(), random.generator(0, "weight")):
        assert isinstance(generator.bit_generator, np.random.Philox)


def test_outside_a_scope_masks_follow_from_the_seed_and_differ_from_call_to_call():
    minidl.manual_seed(5)
    first, second = random.uniform((4, 5)), random.uniform((4, 5))
    assert not np.isin(first, second).any()
    minidl.manual_seed(5)
    np.testing.assert_array_equal(random.uniform((4, 5)), first)
