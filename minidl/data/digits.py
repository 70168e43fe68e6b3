"""The handwritten digits that come with minidl."""

import zlib
from functools import cache
from pathlib import Path

import numpy as np

from minidl.data.datasets import ArrayDataset

SPLIT_SEED = 0, zlib.crc32(b"digits")
TRAINING = 1437


def digits() -> tuple[ArrayDataset, ArrayDataset]:
    """1,437 training and 360 test images of handwritten digits, 8 × 8 pixels: x (1, 8, 8) float32 in [0, 1], y int64.

    The split is shuffled and always the same. Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
    Digits", UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49 (its test part), CC BY 4.0.
    """
    x, y = _arrays()
    # A generator of its own: published accuracies stand only while the test images are those
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(x))
    train, test = order[:TRAINING], order[TRAINING:]
    return ArrayDataset(x[train], y[train]), ArrayDataset(x[test], y[test])


@cache
def _arrays():
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"]
    return (images / np.float32(16)).astype(np.float32)[:, None], labels.astype(np.int64)
