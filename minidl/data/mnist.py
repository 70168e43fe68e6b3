"""MNIST, from the files in which its authors give it out."""

import gzip
import math
import zlib
from pathlib import Path

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
    images = read_idx(_file(folder, f"{part}-images-idx3-ubyte", download), 3)  # (n, 28, 28)
    labels = read_idx(_file(folder, f"{part}-labels-idx1-ubyte", download), 1)
    if len(images) != len(labels):
        raise ValueError(f"MNIST in {folder} does not fit together: {len(images)} images, {len(labels)} labels")
    return TransformedDataset(ArrayDataset(images[:, None], labels.astype(np.int64)), ToFloat())


def _file(folder: Path, name: str, download: bool) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    if not download:
        raise FileNotFoundError(f"neither {name} nor {name}.gz in {folder}: put it there or pass download=True")
    download_file([mirror + path.name for mirror in MIRRORS], path, SHA256[path.name])
    return path


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of bytes in an idx file, which may be gzipped. ValueError if it holds anything else.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions; their sizes as big-endian 32-bit
    integers; the bytes, the last dimension running fastest.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise ValueError(
            f"{path} begins with {content[:4].hex() or 'nothing'}, an idx file of this kind with {magic.hex()}"
        )
    begin = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(content[4:begin].ljust(begin - 4, b"\0"), ">i4").tolist())
    if len(content) - begin != math.prod(shape):
        raise ValueError(f"{path} holds {len(content) - begin} bytes after a header that says {shape}: it is damaged")
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)
