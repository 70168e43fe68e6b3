"""Compiled kernels are found again on disk, and whatever happened to what lies there, they compute."""

import resource

import numpy as np
import pytest
from numba.core import config

from minidl.kernels import machine_code
from minidl.kernels.cpu.fast import compiling


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Makes the kernel anew, as another process would; its code is kept in `tmp_path`."""
    monkeypatch.setattr(compiling, "KEPT_IN", tmp_path)

    def one_more(x):
        return x + 1

    return lambda: compiling.njit()(one_more)


def found(kernel, x=2.0):
    """Whether the code was found, once it has computed the right thing."""
    assert kernel(x) == x + 1
    return bool(kernel.stats.cache_hits)


def test_what_one_process_compiled_the_next_finds_for_each_signature(kernel, tmp_path):
    assert not found(kernel()) and found(kernel())
    again = kernel()
    assert not found(again, 2) and len(list(tmp_path.iterdir())) == 2 and again(2) == 3


DAMAGE = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "garbage": lambda whole: np.random.default_rng(0).bytes(1000),
    "a pickle": lambda whole: b"cbuiltins\nexit\n(tR.",
    "one bit": lambda whole: whole[:900] + bytes([whole[900] ^ 1]) + whole[901:],
    "a byte more": lambda whole: whole + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_made_anew(kernel, tmp_path, damage):
    found(kernel())
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert not found(kernel()) and found(kernel())


def test_a_folder_in_place_of_the_file_keeps_nobody_from_computing(kernel, tmp_path):
    found(kernel())
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    assert not found(kernel()) and file.is_dir()


def test_code_of_another_signature_or_of_other_sources_is_not_taken(kernel, tmp_path, monkeypatch):
    found(kernel(), 2.0)
    (floats,) = tmp_path.iterdir()
    found(kernel(), 2)
    (integers,) = set(tmp_path.iterdir()) - {floats}
    integers.write_bytes(floats.read_bytes())
    assert not found(kernel(), 2)
    monkeypatch.setattr(machine_code, "_origin", lambda sources: b"edited")
    assert not found(kernel(), 2.0)


def test_on_a_full_disk_kernels_compute_and_nothing_is_left(kernel, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        assert not found(kernel())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_the_first_that_can_be_written(tmp_path, monkeypatch):
    here, file, sources = tmp_path / "minidl", tmp_path / "file", compiling.SOURCES
    here.mkdir()
    file.touch()
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "caches"))
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "numba"))
    assert machine_code.folder(here, sources).parent == tmp_path / "numba"
    monkeypatch.setattr(config, "CACHE_DIR", str(file / "numba"))
    assert machine_code.folder(here, sources) == here / "__pycache__"
    assert machine_code.folder(here, ()) is None
    assert machine_code.folder(file, sources).parent == tmp_path / "caches"
    monkeypatch.setenv("MINIDL_CACHE", str(file))
    assert machine_code.folder(file, sources) is None
