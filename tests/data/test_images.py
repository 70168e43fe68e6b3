"""MNIST and CIFAR-10 in their official formats, and how what is wrong with a file or a download is said."""

import gzip
import hashlib
import importlib
import io
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest

from minidl import data

# The modules: the names in the package are the functions of that name.
mnist, cifar10 = (importlib.import_module(f"minidl.data.{name}") for name in ("mnist", "cifar10"))
GENERATOR = np.random.default_rng(0)
PARTS = {"train": 7, "t10k": 3}


def idx(array):
    """The official format of an array of bytes."""
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_arrays():
    return {
        part: (
            GENERATOR.integers(256, size=(n, 28, 28), dtype=np.uint8),
            GENERATOR.integers(10, size=n, dtype=np.uint8),
        )
        for part, n in PARTS.items()
    }


def write_mnist(folder, arrays, packed):
    for part, (images, labels) in arrays.items():
        for name, content in ((f"{part}-images-idx3-ubyte", idx(images)), (f"{part}-labels-idx1-ubyte", idx(labels))):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def check(dataset, images, labels):
    x, y = dataset[np.arange(len(dataset))]
    assert x.dtype == np.float32 and y.dtype == np.int64 and dataset[0][0].shape == images.shape[1:]
    np.testing.assert_array_equal(x, images / np.float32(255))
    np.testing.assert_array_equal(y, labels)
    assert dataset.dataset.x.dtype == np.uint8


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_its_files_packed_or_not(tmp_path, mnist_arrays, packed):
    write_mnist(tmp_path, mnist_arrays, packed)
    for dataset, (images, labels) in zip(data.mnist(tmp_path), mnist_arrays.values(), strict=True):
        check(dataset, images[:, None], labels)


def sizes(*numbers):
    return struct.pack(f">{len(numbers)}i", *numbers)


def cut(content):
    return content[:-5]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-images-idx3-ubyte", cut, r"holds 5483 bytes after a header that says \(7, 28, 28\): it is damaged"),
        ("train-images-idx3-ubyte", lambda c: c + b"x", "holds more than 5488 bytes after"),
        ("train-images-idx3-ubyte", lambda c: c[:6], "is cut short: its header of 16 bytes ends after 6"),
        ("train-images-idx3-ubyte", lambda c: b"", "begins with nothing, an idx file of this kind with 00000803"),
        ("t10k-labels-idx1-ubyte", lambda c: b"\0\0\x0d" + c[3:], "begins with 00000d01, .* with 00000801"),
        ("t10k-labels-idx1-ubyte", lambda c: idx(np.zeros(4, np.uint8)), "does not fit .*: 3 images, 4 labels"),
        ("t10k-labels-idx1-ubyte", lambda c: c[:-1] + b"c", "holds a label 99, digits go from 0 to 9"),
        (
            "train-images-idx3-ubyte",
            lambda c: c[:4] + sizes(-7, 28, -28) + c[16:],
            r"says \(-7, 28, -28\), \(n, 28, 28\)",
        ),
        (
            "train-images-idx3-ubyte",
            lambda c: idx(np.zeros((7, 30, 30), np.uint8)),
            r"\(7, 30, 30\), \(n, 28, 28\) is needed",
        ),
        ("train-images-idx3-ubyte", lambda c: idx(np.zeros((0, 28, 28), np.uint8)), r"says \(0, 28, 28\)"),
        (
            "train-images-idx3-ubyte",
            lambda c: c[:4] + sizes(2**31 - 1, 28, 28) + c[16:],
            "holds less than 1683627179248",
        ),
    ],
)
def test_a_damaged_idx_file_is_named_in_one_sentence(tmp_path, mnist_arrays, name, damage, message):
    write_mnist(tmp_path, mnist_arrays, packed=False)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        data.mnist(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("damage", [cut, lambda c: b"no gzip", lambda c: c[:40] + b"xxxx" + c[44:]])
def test_a_damaged_gzip_file_is_named(tmp_path, mnist_arrays, damage):
    write_mnist(tmp_path, mnist_arrays, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz is cut short or damaged: "):
        data.mnist(tmp_path)


def test_missing_files_are_named_with_what_to_do(tmp_path):
    message = "neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz in .*: put it there or pass download=True"
    with pytest.raises(FileNotFoundError, match=message):
        data.mnist(tmp_path)
    message = "neither cifar-10-binary.tar.gz nor cifar-10-batches-bin in .*: put one there or pass download=True"
    with pytest.raises(FileNotFoundError, match=message):
        data.cifar10(tmp_path)


@pytest.fixture
def mirrors(tmp_path, monkeypatch, mnist_arrays):
    """Two mirrors of MNIST, the first of which has nothing; the folder of the second."""
    good = tmp_path / "good"
    good.mkdir()
    write_mnist(good, mnist_arrays, packed=True)
    monkeypatch.setattr(mnist, "MIRRORS", ((tmp_path / "none").as_uri() + "/", good.as_uri() + "/"))
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in good.iterdir()}
    monkeypatch.setattr(mnist, "SHA256", sums)
    return good


def test_what_is_missing_is_downloaded_once_from_the_first_mirror_that_has_it(tmp_path, mirrors, mnist_arrays):
    here = tmp_path / "new" / "folder"
    train, _ = data.mnist(here, download=True)
    check(train, mnist_arrays["train"][0][:, None], mnist_arrays["train"][1])
    assert sorted(p.name for p in here.iterdir()) == sorted(mnist.SHA256)
    for path in mirrors.iterdir():
        path.unlink()
    data.mnist(here, download=True)


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(tmp_path, mirrors):
    path = mirrors / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RuntimeError) as caught:
        data.mnist(tmp_path / "here", download=True)
    message = str(caught.value)
    assert message.startswith("cannot download train-labels-idx1-ubyte.gz: ") and "its SHA-256 is " in message
    assert "No such file" in message and message.endswith(f"put the file into {tmp_path / 'here'} yourself")
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_without_a_network_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "URLS", ("http://127.0.0.1:9/cifar-10-binary.tar.gz",))
    with pytest.raises(RuntimeError, match="cannot download cifar-10-binary.tar.gz: http.*refused") as caught:
        data.cifar10(tmp_path, download=True)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.fixture
def cifar_files():
    """name -> records (n, 3073) of bytes."""
    files = {}
    for name in cifar10.TRAINING + cifar10.TEST:
        files[name] = GENERATOR.integers(256, size=(2, 3073), dtype=np.uint8)
        files[name][:, 0] %= 10
    return files


def write_cifar(folder, files, packed):
    if not packed:
        (folder / "cifar-10-batches-bin").mkdir()
        for name, records in files.items():
            (folder / "cifar-10-batches-bin" / name).write_bytes(records.tobytes())
        return
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, records in [("readme.html", np.zeros(9, np.uint8)), *files.items()]:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = records.size
            tar.addfile(member, io.BytesIO(records.tobytes()))


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_is_read_from_its_files_packed_or_not(tmp_path, cifar_files, packed):
    write_cifar(tmp_path, cifar_files, packed)
    for dataset, names in zip(data.cifar10(tmp_path), (cifar10.TRAINING, cifar10.TEST), strict=True):
        records = np.concatenate([cifar_files[name] for name in names])
        check(dataset, records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0])
    red = cifar_files["test_batch.bin"][0, 1 : 1 + 32]  # the first row of the first image
    np.testing.assert_array_equal(data.cifar10(tmp_path)[1][0][0][0, 0], red / np.float32(255))


def test_damaged_cifar_files_are_named(tmp_path, cifar_files):
    write_cifar(tmp_path, cifar_files, packed=True)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz is cut short or damaged: "):
        data.cifar10(tmp_path)
    write_cifar(tmp_path, cifar_files, packed=False)
    test = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    test.write_bytes(test.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{test} holds 6145 bytes, and not 1 to 10000 records of 3073"):
        data.cifar10(tmp_path)
    test.write_bytes(bytes([10]) * 3073)
    with pytest.raises(ValueError, match=f"{test} holds a label 10, not one of 10 classes"):
        data.cifar10(tmp_path)
    test.unlink()
    with pytest.raises(FileNotFoundError, match=f"{test.parent} lacks test_batch.bin"):
        data.cifar10(tmp_path)


def member(name, content=b"", **facts):
    """A member of an archive, whose header may say what is not so."""
    info = tarfile.TarInfo(name)
    for fact, value in ({"size": len(content)} | facts).items():
        setattr(info, fact, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content.ljust(-len(content) % 512 + len(content), b"\0")


RECORDS = bytes(2 * 3073)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (member("test_batch.bin", type=tarfile.SYMTYPE, linkname="data_batch_1.bin"), "archive lacks test_batch.bin"),
        (
            member("test_batch.bin", size=10_001 * 3073),
            "damaged: test_batch.bin holds 30733073 bytes, and not 1 to 10000",
        ),
        (member("test_batch.bin", RECORDS, size=-512), "damaged: test_batch.bin is of size -512"),
        (member("test_batch.bin", bytes([11]) * 3073), "damaged: test_batch.bin holds a label 11"),
        (member("a", type=tarfile.XHDTYPE, size=1 << 40), "damaged: a header says that 1099511627776 bytes follow"),
        (member("a", type=tarfile.GNUTYPE_LONGNAME, size=-512), "damaged: a header says that -512 bytes follow"),
        (b"".join(member("a", b"8 a=bcd\n", type=tarfile.XHDTYPE) for _ in range(2000)), "damaged: "),
        (member("a") * 101, "damaged: it has more than 100 members"),
        (member("test_batch.bin", RECORDS)[:-1000], "damaged: "),
    ],
)
def test_an_archive_is_refused_in_one_sentence_before_more_of_it_is_read(tmp_path, extra, message):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(gzip.compress(b"".join(member(name, RECORDS) for name in cifar10.TRAINING) + extra))
    with pytest.raises((ValueError, FileNotFoundError), match=message.replace("archive", str(archive))) as caught:
        data.cifar10(tmp_path)
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"no gzip", b"", gzip.compress(b""), gzip.compress(b"no tar" * 1000)])
def test_what_is_no_archive_is_refused_by_name(tmp_path, content):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match="cifar-10-binary.tar.gz "):
        data.cifar10(tmp_path)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_packed_file_with_a_flipped_bit_gives_the_right_pixels_or_an_error_that_names_it(
    tmp_path, mnist_arrays, cifar_files, name
):
    write_mnist(tmp_path, mnist_arrays, packed=True)
    write_cifar(tmp_path, cifar_files, packed=True)
    file = tmp_path / {"mnist": "train-images-idx3-ubyte.gz", "cifar10": "cifar-10-binary.tar.gz"}[name]
    load, whole = getattr(data, name), file.read_bytes()
    right = load(tmp_path)[0].dataset.x
    for _ in range(60):
        place, bit = GENERATOR.integers(len(whole)), 1 << GENERATOR.integers(8)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            np.testing.assert_array_equal(load(tmp_path)[0].dataset.x, right)
        except (ValueError, OSError) as error:
            assert str(file) in str(error)


def test_what_unpacks_to_more_than_its_header_says_is_not_unpacked(tmp_path, mnist_arrays):
    write_mnist(tmp_path, mnist_arrays, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(mnist_arrays["train"][0]) + bytes(1 << 23)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds more than 5488 bytes"):
            data.mnist(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "shape"), [("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))])
def test_synthetic_images_look_like_the_real_ones_and_can_be_learnt(name, shape):
    train, test = data.synthetic_images(name, 200, 100)
    x, y = train[np.arange(200)]
    assert x.shape == (200, *shape) and x.dtype == np.float32 and 0 <= x.min() < x.max() <= 1
    assert y.dtype == np.int64 and set(y) == set(range(10)) and train.dataset.x.dtype == np.uint8
    means = np.stack([x[y == label].mean(0) for label in range(10)])
    unseen, labels = test[np.arange(100)]
    nearest = ((unseen[:, None] - means) ** 2).sum((2, 3, 4)).argmin(1)
    assert (nearest == labels).mean() > 0.95
    again, _ = data.synthetic_images(name, 200, 100)
    np.testing.assert_array_equal(again.dataset.x, train.dataset.x)
    with pytest.raises(ValueError, match="unknown data set 'svhn', choose one of mnist, cifar10"):
        data.synthetic_images("svhn")
