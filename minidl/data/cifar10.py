"""CIFAR-10, from its authors' binary version."""

import gzip
import tarfile
import zlib
from pathlib import Path

import numpy as np

from minidl.data.datasets import ArrayDataset
from minidl.data.download import download_file
from minidl.data.transformed import TransformedDataset
from minidl.data.transforms import ToFloat

URLS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",  # the authors'
    "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/cifar-10-binary.tar.gz",
)
# As in the checksums of TensorFlow Datasets; the authors' page gives the MD5, c32a1d4ab5d03f1284b67883e8d87530.
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
TRAINING, TEST = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",)
FILES = TRAINING + TEST
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # bytes: the label; then the red, the green and the blue pixels, row by row
LARGEST = 10_000 * RECORD  # bytes of a file
MEMBERS = 100  # the archive has nine
DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError, RecursionError)


def cifar10(folder: str | Path, download: bool = False) -> tuple[TransformedDataset, TransformedDataset]:
    """50,000 training and 10,000 test colour images of the ten CLASSES: x (3, 32, 32) float32 in [0, 1], y int64.

    folder: holds cifar-10-binary.tar.gz, or cifar-10-batches-bin as it is unpacked; with `download` the first is
    fetched if neither is there. (The version for Python is not read: it is made of pickles, which run code.) The pixels
    stay bytes in memory: `train.dataset.x` is (50000, 3, 32, 32) of uint8. Raises FileNotFoundError without the files,
    ValueError for one that is damaged, RuntimeError if a download fails.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    files = _files(Path(folder), download)
    return _dataset(files, TRAINING), _dataset(files, TEST)


def _files(folder: Path, download: bool) -> dict[str, np.ndarray]:
    """The records of the six files by name: (n, RECORD) bytes each."""
    unpacked, archive = folder / FOLDER, folder / ARCHIVE
    if unpacked.is_dir():
        return _whole(unpacked, {name: _file(unpacked / name) for name in FILES if (unpacked / name).exists()})
    if not archive.exists() and not download:
        raise FileNotFoundError(f"neither {ARCHIVE} nor {FOLDER} in {folder}: put one there or pass download=True")
    if not archive.exists():
        download_file(URLS, archive, SHA256)
    try:
        return _whole(archive, _members(archive))
    except DAMAGE as error:
        raise ValueError(f"{archive} is cut short or damaged: {error}") from error


def _whole(place: Path, files: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    missing = [name for name in FILES if name not in files]
    if missing:
        raise FileNotFoundError(f"{place} lacks {', '.join(missing)}")
    return files


def _file(path: Path) -> np.ndarray:
    _check_size(path, path.stat().st_size)
    return _records(path, path.read_bytes())


def _members(archive: Path) -> dict[str, np.ndarray]:
    """What there is of the files in the archive, which is unpacked to its end, where the checksum is."""
    files = {}
    with Stream(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for number, member in enumerate(tar):
                if number == MEMBERS:
                    raise tarfile.ReadError(f"it has more than {MEMBERS} members")
                if member.size < 0:  # would be read again and again
                    raise tarfile.ReadError(f"{member.name} is of size {member.size}")
                name = Path(member.name).name
                if member.isfile() and name in FILES:
                    _check_size(name, member.size)
                    files[name] = _records(name, tar.extractfile(member).read())
        while stream.read(LARGEST):
            pass
    return files


class Stream(gzip.GzipFile):
    """An unpacked archive, of which a header cannot have more read at once than a file of CIFAR-10 holds."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST:
            raise tarfile.ReadError(f"a header says that {size} bytes follow")
        return super().read(size)


def _check_size(name: str | Path, size: int) -> None:
    if not 0 < size <= LARGEST or size % RECORD:
        raise ValueError(f"{name} holds {size} bytes, and not 1 to {LARGEST // RECORD} records of {RECORD}")


def _records(name: str | Path, content: bytes) -> np.ndarray:
    """(n, RECORD) bytes."""
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    label = records[:, 0].max()
    if label >= len(CLASSES):
        raise ValueError(f"{name} holds a label {label}, not one of {len(CLASSES)} classes: it is damaged")
    return records


def _dataset(files: dict[str, np.ndarray], names: tuple[str, ...]) -> TransformedDataset:
    records = np.concatenate([files[name] for name in names])
    labels = records[:, 0].astype(np.int64)
    return TransformedDataset(ArrayDataset(records[:, 1:].reshape(-1, 3, 32, 32), labels), ToFloat())
