"""MNIST, from the files in which its authors give it out."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minidl.data.datasets import ArrayDataset
from minidl.data.download import download_file
from minidl.data.transformed import TransformedDataset
from minidl.data.transforms import ToFloat

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",  # PyTorch's
    "https://storage.googleapis.com/cvdf-datasets/mnist/",  # TensorFlow's
)
SHA256 = {  # as in the checksums of TensorFlow Datasets; what torchvision lists by MD5 are the same files
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
DEFLATED = 1032  # a packed byte unpacks to at most so many


def mnist(folder: str | Path, download: bool = False) -> tuple[TransformedDataset, TransformedDataset]:
    """60,000 training and 10,000 test images of handwritten digits: x (1, 28, 28) float32 in [0, 1], y int64.

    folder: holds the four official files, gzipped or not; with `download` those that are missing are fetched. The
    pixels stay bytes in memory: `train.dataset.x` is (60000, 1, 28, 28) of uint8. Raises FileNotFoundError without the
    files, ValueError for one that is damaged, RuntimeError if a download fails.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
    """
    folder = Path(folder)
    return _part(folder, "train", download), _part(folder, "t10k", download)


def _part(folder: Path, part: str, download: bool) -> TransformedDataset:
    images_path = _file(folder, f"{part}-images-idx3-ubyte", download)
    labels_path = _file(folder, f"{part}-labels-idx1-ubyte", download)
    images, labels = read_idx(images_path, (28, 28)), read_idx(labels_path, ())
    if len(images) != len(labels):
        raise ValueError(
            f"{images_path} does not fit together with {labels_path}: {len(images)} images, {len(labels)} labels"
        )
    if labels.max() > 9:
        raise ValueError(f"{labels_path} holds a label {labels.max()}, digits go from 0 to 9: it is damaged")
    return TransformedDataset(ArrayDataset(images[:, None], labels.astype(np.int64)), ToFloat())


def _file(folder: Path, name: str, download: bool) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    if not download:
        raise FileNotFoundError(f"neither {name} nor {name}.gz in {folder}: put it there or pass download=True")
    download_file([mirror + path.name for mirror in MIRRORS], path, SHA256[path.name])
    return path


def read_idx(path: Path, sample: tuple[int, ...]) -> np.ndarray:
    """The array (n, *sample) of bytes in an idx file, which may be gzipped. ValueError if it holds anything else.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions; their sizes as big-endian 32-bit
    integers; the bytes, the last dimension running fastest. No more is unpacked than the header says there is.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            shape = _shape(path, file, sample)
            size, room = math.prod(shape), path.stat().st_size * (DEFLATED if packed else 1)
            content = file.read(size + 1) if size <= room else b""
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error
    if len(content) != size:
        held = (
            f"more than {size}" if len(content) > size else f"{len(content)}" if size <= room else f"less than {size}"
        )
        raise ValueError(f"{path} holds {held} bytes after a header that says {shape}: it is damaged")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(path: Path, file: BinaryIO, sample: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes in the header of an idx file. ValueError if they are not those of at least one `sample`."""
    dimensions = 1 + len(sample)
    magic, found = bytes([0, 0, 8, dimensions]), file.read(4)
    if found != magic:
        raise ValueError(f"{path} begins with {found.hex() or 'nothing'}, an idx file of this kind with {magic.hex()}")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ValueError(f"{path} is cut short: its header of {4 + 4 * dimensions} bytes ends after {4 + len(sizes)}")
    shape = tuple(np.frombuffer(sizes, ">i4").tolist())
    if shape[0] < 1 or shape[1:] != sample:
        needed = ", ".join(["n", *map(str, sample)])
        raise ValueError(f"{path} has a header that says {shape}, ({needed}) is needed, with n at least 1: damaged?")
    return shape
