"""CIFAR-10, from its authors' binary version."""

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
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # bytes: the label; then the red, the green and the blue pixels, row by row


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


def _files(folder: Path, download: bool) -> dict[str, bytes]:
    """The content of the six files by name."""
    unpacked, archive = folder / FOLDER, folder / ARCHIVE
    if unpacked.is_dir():
        missing = [name for name in TRAINING + TEST if not (unpacked / name).exists()]
        files = {name: (unpacked / name).read_bytes() for name in TRAINING + TEST if name not in missing}
    else:
        if not archive.exists() and not download:
            raise FileNotFoundError(f"neither {ARCHIVE} nor {FOLDER} in {folder}: put one there or pass download=True")
        if not archive.exists():
            download_file(URLS, archive, SHA256)
        try:
            with tarfile.open(archive) as tar:
                members = {Path(member.name).name: member for member in tar if member.isfile()}
                files = {name: tar.extractfile(members[name]).read() for name in TRAINING + TEST if name in members}
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise ValueError(f"{archive} is cut short or damaged: {error}") from error
        missing = [name for name in TRAINING + TEST if name not in files]
    if missing:
        raise FileNotFoundError(f"CIFAR-10 in {folder} lacks {', '.join(missing)}")
    return files


def _dataset(files: dict[str, bytes], names: tuple[str, ...]) -> TransformedDataset:
    for name in names:
        if not files[name] or len(files[name]) % RECORD:
            size = len(files[name])
            raise ValueError(f"{name} of CIFAR-10 holds {size} bytes, no multiple of {RECORD}: it is cut short")
    records = np.concatenate([np.frombuffer(files[name], np.uint8) for name in names]).reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise ValueError(
            f"{', '.join(names)} of CIFAR-10 hold a label {labels.max()}, not one of {len(CLASSES)} classes: damaged?"
        )
    return TransformedDataset(ArrayDataset(records[:, 1:].reshape(-1, 3, 32, 32), labels), ToFloat())
