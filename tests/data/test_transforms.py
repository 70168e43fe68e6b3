"""Transforms against closed forms, Python's colour conversions, PyTorch's grids and the statistics of their draws."""

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import data
from minidl.data import transforms as T
from minidl.data.transforms import color

SEEDS = st.integers(0, 1000)
SIZES = st.integers(1, 9)


def image(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def generator(seed=0):
    return np.random.default_rng(seed)


RANDOM = [
    T.RandomCrop(4, padding=2),
    T.RandomHorizontalFlip(),
    T.RandomVerticalFlip(),
    T.RandomRotation(30),
    T.ColorJitter(0.4, 0.4, 0.4, 0.1),
    T.Cutout(3, holes=2),
    T.Compose([T.RandomCrop(5, padding=1), T.RandomHorizontalFlip(), T.Normalize([0.5] * 3, [0.2] * 3)]),
]


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_a_random_transform_is_given_by_its_generator_and_leaves_its_input_alone(transform):
    assert transform.random
    x = image(3, 6, 6)
    before = x.copy()
    first, again, *others = (transform(x, generator(seed)) for seed in (0, 0, 1, 2, 3, 4, 5, 6))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(x, before)
    assert first.dtype == x.dtype and any((first != other).any() for other in others)
    minidl.manual_seed(3)
    drawn = transform(x)
    minidl.manual_seed(3)
    np.testing.assert_array_equal(drawn, transform(x))


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_a_batch_in_one_call_is_one_draw_for_all(transform):
    x = image(2, 3, 6, 6)
    together = transform(x, generator())
    np.testing.assert_allclose(together, np.stack([transform(row, generator()) for row in x]), rtol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [
        T.ToFloat(), T.CenterCrop(2), T.Normalize([0.1, 0.2, 0.3], [1, 2, 3]), T.Standardize(image(9, 3, 6, 6)),
        T.FillMissing(image(9, 3, 6, 6)), T.Compose([T.CenterCrop((4, 2)), T.Normalize([0] * 3, [2] * 3)]),
    ],
    ids=lambda t: type(t).__name__,
)  # fmt: skip
def test_a_transform_that_draws_nothing_takes_samples_and_batches_alike(transform):
    assert not transform.random
    x = image(4, 3, 6, 6)
    dataset = data.TransformedDataset(data.ArrayDataset(x, np.arange(4)), transform)
    together, _ = dataset[np.arange(4)]
    assert together.dtype == np.float32
    np.testing.assert_array_equal(together, np.stack([dataset[i][0] for i in range(4)]))


def test_bytes_become_floats_from_0_to_1():
    found = T.ToFloat()(np.array([[0, 51, 255]], np.uint8))
    assert found.dtype == np.float32 and found.tolist() == [[0, np.float32(0.2), 1]]
    with pytest.raises(TypeError, match="uint8 or of floats, not of int64"):
        T.ToFloat()(np.zeros(2, int))


def test_normalize_is_per_channel():
    x = np.ones((2, 2, 1), np.float32) * np.array([3, 5], np.float32).reshape(2, 1, 1)
    assert T.Normalize([1, 1], [2, 4])(x).ravel().tolist() == [1, 1, 1, 1]
    for mean, std, pixels, error, message in (
        ([1, 1], [1], x, ValueError, "2 means and 1 standard deviations"),
        ([1, 1], [1, 0], x, ValueError, "must be above 0"),
        ([1], [1], x, ValueError, r"1 means for an image of shape \(2, 2, 1\)"),
        ([1, 1], [1, 1], x.astype(np.uint8), TypeError, "use ToFloat before"),
    ):
        with pytest.raises(error, match=message):
            T.Normalize(mean, std)(pixels)


def test_standardized_data_have_mean_0_and_deviation_1_and_come_back():
    x = generator().normal(5, 3, (200, 4)).astype(np.float32)
    x[:, 2] = 7
    x[3, 1] = np.nan
    standardize = T.Standardize(x)
    z = standardize(x)
    np.testing.assert_allclose(np.nanmean(z, 0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(z, 0), [1, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(standardize.inverse(z), x, atol=1e-5)
    channels = T.Standardize(image(10, 3, 4, 4), dim=(0, 2, 3))
    assert channels.mean.shape == (3, 1, 1) and channels(image(3, 4, 4)).dtype == np.float32
    with pytest.raises(ValueError, match="leaves out 0"):
        T.Standardize(x, dim=1)
    with pytest.raises(TypeError, match="needs floats, not int64"):
        standardize(np.zeros((1, 4), int))


def test_missing_values_are_dropped_or_filled_from_the_training_set():
    nan = np.nan
    x, y = np.array([[1, nan], [2, 4], [6, 6]], np.float32), np.arange(3)
    kept, labels = T.drop_missing(x, y)
    assert kept.tolist() == [[2, 4], [6, 6]] and labels.tolist() == [1, 2]
    test = np.array([[nan, nan]], np.float32)
    for by, expected in (("mean", [3, 5]), ("median", [2, 5]), (-1, [-1, -1])):
        filled = T.FillMissing(x, by)
        assert filled(test).tolist() == [expected] and filled(test).dtype == np.float32
        assert filled(x)[1:].tolist() == x[1:].tolist()
    with pytest.raises(ValueError, match="column 1 has no value to take the mean of"):
        T.FillMissing(x[:1])
    with pytest.raises(ValueError, match="choose mean, median or a number"):
        T.FillMissing(x, "mode")
    with pytest.raises(ValueError, match="x has 3 samples, another array 2"):
        T.drop_missing(x, y[:2])


@given(SIZES, SIZES, st.integers(0, 3), st.data())
def test_a_random_crop_is_a_window_of_the_padded_image(height, width, padding, draw):
    size = draw.draw(st.tuples(st.integers(1, height + 2 * padding), st.integers(1, width + 2 * padding)))
    x = image(2, height, width)
    found = T.RandomCrop(size, padding, fill=9)(x, generator(draw.draw(SEEDS)))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)), constant_values=9)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, (1, 2))  # (channels, rows, columns, *size)
    assert (windows == found[:, None, None]).all((0, 3, 4)).any()


def test_all_places_of_a_crop_are_equally_likely():
    x = np.arange(16.0).reshape(1, 4, 4)
    corners = [T.RandomCrop(3)(x, generator(seed))[0, 0, 0] for seed in range(1000)]
    places, counts = np.unique(corners, return_counts=True)
    assert places.tolist() == [0, 1, 4, 5] and (abs(counts - 250) < 4 * np.sqrt(250)).all()


@pytest.mark.parametrize(("size", "crop", "top"), [(8, 4, 2), (7, 4, 2), (5, 4, 0), (4, 1, 2), (4, 4, 0)])
def test_the_middle_is_where_torchvision_has_it(size, crop, top):
    x = np.arange(size * size).reshape(1, size, size)
    np.testing.assert_array_equal(T.CenterCrop(crop)(x), x[:, top : top + crop, top : top + crop])


def test_a_crop_that_does_not_fit_is_refused():
    for crop in (T.CenterCrop(5), T.RandomCrop((9, 2), padding=2)):
        with pytest.raises(ValueError, match=f"{type(crop).__name__}: a window of .* does not fit in"):
            crop(image(1, 4, 4), generator())
    for wrong in (0, (1, 2, 3)):
        with pytest.raises(ValueError, match="neither a number of pixels nor a height and a width"):
            T.CenterCrop(wrong)


@pytest.mark.parametrize(("flip", "axis"), [(T.RandomHorizontalFlip, 2), (T.RandomVerticalFlip, 1)])
def test_flips_mirror_twice_to_the_image_and_come_as_often_as_asked(flip, axis):
    x = image(3, 4, 5)
    once = flip(p=1)(x, generator())
    np.testing.assert_array_equal(once, np.flip(x, axis))
    np.testing.assert_array_equal(flip(p=1)(once, generator()), x)
    flipped = sum((flip(p=0.3)(x, generator(seed)) != x).any() for seed in range(1000))
    assert abs(flipped - 300) < 4 * np.sqrt(1000 * 0.3 * 0.7)
    assert (flip(p=0)(x, generator()) == x).all()
    with pytest.raises(ValueError, match="p=2 is no probability"):
        flip(p=2)


@given(SIZES, st.integers(-4, 4), SEEDS)
def test_a_turn_by_quarters_is_rot90(size, quarters, seed):
    x = image(2, size, size, seed=seed)
    np.testing.assert_allclose(T.rotate(x, 90 * quarters), np.rot90(x, quarters, (1, 2)), atol=1e-6)


@given(SIZES, SIZES, st.floats(-180, 180), SEEDS)
def test_any_turn_is_pytorchs_sampling_of_the_turned_grid(height, width, degrees, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    x = image(2, height, width, seed=seed).astype(np.float64)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    # affine_grid counts from -1 to 1 across the image in both directions.
    theta = torch.tensor([[[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]])
    grid = torch.nn.functional.affine_grid(theta, (1, 2, height, width), align_corners=False)
    theirs = torch.nn.functional.grid_sample(torch.from_numpy(x)[None], grid, align_corners=False)[0].numpy()
    np.testing.assert_allclose(T.rotate(x, degrees), theirs, atol=1e-9)


def test_a_rotation_draws_evenly_between_its_bounds_and_fills_with_its_colour():
    x = image(1, 5, 5)
    np.testing.assert_array_equal(T.RandomRotation((20, 20))(x, generator()), T.rotate(x, 20))
    assert T.rotate(x, 45, fill=7)[0, 0, 0] > 1 and (T.rotate(np.full((1, 5, 5), 3.0), 45, fill=3) == 3).all()
    with pytest.raises(ValueError, match="one of at least 0 or the least and the most"):
        T.RandomRotation((5, -5))
    with pytest.raises(TypeError, match="use ToFloat before"):
        T.rotate(np.zeros((2, 2), np.uint8), 3)


COLOUR = st.tuples(*[st.integers(0, 8).map(lambda n: n / 8)] * 3)


@given(COLOUR, st.floats(-0.5, 0.5))
def test_hue_moves_on_the_circle_as_in_pythons_colorsys(colour, shift):
    x = np.array(colour, np.float64).reshape(3, 1, 1)
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    expected = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
    np.testing.assert_allclose(color.adjust_hue(x, shift).ravel(), expected, atol=1e-12)
    there_and_back = color.adjust_hue(color.adjust_hue(x, shift), -shift)
    np.testing.assert_allclose(there_and_back, x, atol=1e-9)


def test_brightness_contrast_and_saturation_are_torchvisions_blends():
    x = image(3, 4, 4)
    grey = 0.2989 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    for factor in (0, 0.5, 1, 1.7):
        for found, other in (
            (color.adjust_brightness(x, factor), 0),
            (color.adjust_contrast(x, factor), grey.mean()),
            (color.adjust_saturation(x, factor), grey),
        ):
            np.testing.assert_allclose(found, np.clip(factor * x + (1 - factor) * other, 0, 1), atol=1e-6)
            assert found.dtype == np.float32


def test_a_jitter_changes_only_what_it_is_told_to():
    x = image(3, 4, 4)
    np.testing.assert_array_equal(T.ColorJitter()(x, generator()), x)
    brighter = T.ColorJitter(brightness=0.5)(x / 2, generator())
    factor = brighter[0, 0, 0] / (x[0, 0, 0] / 2)
    assert 0.5 <= factor <= 1.5
    np.testing.assert_allclose(brighter, x / 2 * factor, rtol=1e-5)
    single = image(1, 4, 4)
    np.testing.assert_allclose(T.ColorJitter(saturation=0.9, hue=0.5)(single, generator()), single, atol=1e-6)
    for wrong, message in (({"brightness": -1}, "brightness=-1 is negative"), ({"hue": 0.6}, "not between 0 and 0.5")):
        with pytest.raises(ValueError, match=message):
            T.ColorJitter(**wrong)
    with pytest.raises(ValueError, match="1 or 3, height, width. of floats, not uint8"):
        T.ColorJitter(contrast=1)(np.zeros((3, 2, 2), np.uint8), generator())


def test_cutout_hides_a_square_about_a_pixel_and_reaches_beyond_the_border():
    areas = {int((T.Cutout(4)(np.ones((2, 8, 8)), generator(seed)) == 0).sum()) // 2 for seed in range(200)}
    assert max(areas) == 16 and min(areas) == 4  # about a corner only a quarter lies inside
    hidden = T.Cutout(3)(np.ones((1, 9, 9)), generator(1))[0] == 0
    rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
    assert hidden[np.ix_(rows, columns)].all() and hidden.sum() == len(rows) * len(columns)
    counts = sum((T.Cutout(1)(np.ones((1, 3, 3)), generator(seed))[0] == 0) for seed in range(900))
    assert (abs(counts - 100) < 4 * np.sqrt(100)).all()
    with pytest.raises(ValueError, match="both must be at least 1"):
        T.Cutout(0)


def test_mixup_mixes_labels_as_it_mixes_samples():
    y = np.arange(6) % 3
    x = np.eye(3, dtype=np.float32)[y]
    mixed, soft = T.Mixup(3, alpha=1.0)(x, y, generator(1))
    np.testing.assert_array_equal(mixed, soft)  # here the samples are their labels
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-6)
    assert soft.dtype == np.float32 and (soft != x).any()
    np.testing.assert_array_equal(T.Mixup(3, alpha=1.0)(x, x, generator(1))[1], soft)  # labels that are soft already
    tensors = T.Mixup(3, alpha=1.0)(minidl.tensor(x), minidl.tensor(y), generator(1))
    np.testing.assert_array_equal(tensors[1].numpy(), soft)
    logits = minidl.randn(6, 3)
    loss = minidl.nn.CrossEntropyLoss()(logits, tensors[1]).item()
    log_p = logits.numpy() - np.log(np.exp(logits.numpy()).sum(1, keepdims=True))
    assert abs(loss + (soft * log_p).sum(1).mean()) < 1e-5
    with pytest.raises(ValueError, match="labels from 0 to 2 for 2 classes"):
        T.Mixup(2)(x, y)
    with pytest.raises(ValueError, match="both must be above 0"):
        T.Mixup(2, alpha=0)


def test_the_share_of_mixup_is_beta_distributed():
    x, y = np.array([[1.0], [0.0]]), np.array([0, 1])
    shares = []
    for seed in range(2000):
        mixed, _ = T.Mixup(2, alpha=0.4)(x, y, generator(seed))
        if mixed[0] + mixed[1] == 1 and not np.isin(mixed, (0, 1)).all():
            shares.append(mixed[0, 0])
    assert len(shares) > 800  # half of the orders leave both samples in place
    assert abs(np.mean(shares) - 0.5) < 0.04
    assert abs(np.var(shares) - 0.25 / 1.8) < 0.01  # of Beta(a, a): 1 / (4 (2 a + 1))


def test_compose_applies_in_order_and_refuses_what_is_no_function():
    plus, times = (lambda x, g: x + 1), (lambda x, g: x * 2)
    assert T.Compose([plus, times])(np.array([3])) == 8 and T.Compose([plus]).random
    with pytest.raises(TypeError, match="not a int"):
        T.Compose([plus, 3])
