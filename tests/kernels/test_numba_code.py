"""Machine code for a GPU is found again by another process, and never by another kernel."""

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ptx import for_numba, missing

from minidl import notices
from minidl.kernels.cuda import elementwise, reduction, sorting
from minidl.kernels.cuda.softmax import softmax_kernel

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

FLOATS = np.float32, np.float64
CUBIN = b"what the linker would give"


@pytest.fixture
def numba_code(tmp_path, monkeypatch):
    """numba_code.py, which keeps what is compiled for a GPU that is not there; a cubin is made up."""
    from cuda.core import ObjectCode
    from numba.cuda import codegen, dispatcher

    numba_code = importlib.import_module("minidl.kernels.cuda.numba_code")
    device = SimpleNamespace(compute_capability=(9, 0), id=0)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)
    monkeypatch.setattr(codegen, "devices", SimpleNamespace(get_context=lambda: SimpleNamespace(device=device)))

    def bind(kernel):
        kernel._codelibrary._cubin_cache[9, 0, "a"] = ObjectCode.from_cubin(CUBIN)

    monkeypatch.setattr(dispatcher._Kernel, "bind", bind)
    monkeypatch.setattr(numba_code, "KEPT_IN", tmp_path)
    return numba_code


def scaling(factor, places=2, of=lambda x: x):
    """A kernel that a function makes, as in another process: of a number, a size and a device function."""
    from numba import cuda

    @cuda.jit(device=True)
    def scaled(x):
        return factor * x

    also = cuda.jit(device=True)(of)

    @cuda.jit
    def kernel(x, n):
        some = cuda.local.array(places, np.float32)
        i = cuda.grid(1)
        if i < n:
            some[0] = also(scaled(x[i]))
            x[i] = some[0]

    return kernel


def types(dtype=np.float32):
    from numba.cuda import types
    from numba.cuda.np.numpy_support import from_dtype

    return types.Array(from_dtype(np.dtype(dtype)), 1, "C"), types.int64


def found(numba_code, kernel, types) -> bool:
    """Whether the code was found, once it is there."""
    compiled = numba_code.kept(kernel).compile(types)
    library = compiled._codelibrary
    assert library.get_cubin().code == CUBIN and library._entry_name in library.get_asm_str()
    assert compiled.argument_types == types and compiled.entry_name == library._entry_name
    return bool(kernel.stats.cache_hits)


def test_what_one_process_compiled_the_next_finds_for_each_signature(numba_code, tmp_path):
    half = np.float32(0.5)
    assert not found(numba_code, scaling(half), types()) and found(numba_code, scaling(half), types())
    assert not found(numba_code, scaling(half), types(np.float64)) and found(numba_code, scaling(half), types())
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_found_is_what_was_compiled(numba_code):
    one, other = (numba_code.kept(scaling(np.float32(0.5))).compile(types()) for _ in range(2))
    states, again = one._reduce_states(), other._reduce_states()
    library, its = states.pop("codelibrary")._reduce_states(), again.pop("codelibrary")._reduce_states()
    assert [c.code for c in library.pop("cubin_cache").values()] == [c.code for c in its.pop("cubin_cache").values()]
    assert library == its
    assert type(states.pop("call_helper")) is type(again.pop("call_helper"))
    assert states == again


def test_kernels_of_one_name_are_told_apart_by_what_they_are_made_of(numba_code, tmp_path):
    half = np.float32(0.5)
    made = [
        lambda: scaling(half),
        lambda: scaling(np.float32(0.25)),
        lambda: scaling(np.float64(0.5)),
        lambda: scaling(half, places=3),
        lambda: scaling(half, of=lambda x: -x),
        lambda: scaling(half, of=lambda x: x * x),
    ]
    described = [numba_code.described(make()) for make in made]
    assert len(set(described)) == len(made) and described == [numba_code.described(make()) for make in made]
    for make in made:
        assert not found(numba_code, make(), types())
    assert len(list(tmp_path.iterdir())) == len(made)
    assert all(found(numba_code, make(), types()) for make in made)


OUTSIDE = 2


def test_a_number_among_the_globals_tells_kernels_apart(numba_code, monkeypatch):
    from numba import cuda

    @cuda.jit
    def kernel(x):
        x[OUTSIDE] = len(x)

    before = numba_code.described(kernel)
    monkeypatch.setitem(globals(), "OUTSIDE", 3)
    assert numba_code.described(kernel) != before


def test_a_damaged_file_is_compiled_anew(numba_code, tmp_path):
    found(numba_code, scaling(2), types())
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in b"", whole[: len(whole) // 2], whole[:900] + bytes([whole[900] ^ 1]) + whole[901:], whole + b"\0":
        file.write_bytes(damaged)
        assert not found(numba_code, scaling(2), types()) and found(numba_code, scaling(2), types())


def test_what_cannot_be_described_pickled_or_rebuilt_is_compiled_and_said(numba_code, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(notices, "_said", set())
    strange = scaling(2)
    strange.py_func.__defaults__ = (object(),)
    assert numba_code.kept(strange) is strange and "nothing is known of <object" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(numba_code, "dumps", lambda states: [][0])
        assert not found(numba_code, scaling(2), types()) and not list(tmp_path.iterdir())
    assert "IndexError" in caplog.text
    found(numba_code, scaling(2), types())
    monkeypatch.setattr(numba_code._Kernel, "_rebuild", lambda **states: 1 // 0)
    assert not found(numba_code, scaling(2), types()) and "ZeroDivisionError" in caplog.text


def descriptions() -> dict[str, str]:
    """Of kernels of some families, made for a GPU out of those of the emulator."""
    from numba import cuda

    from minidl.kernels.cuda.numba_code import described

    made = {name: elementwise._kernel(2, name, np.float32) for name in ("add", "divide")}
    made |= {f"gelu {F.__name__}": elementwise._kernel(1, "gelu_tanh", F) for F in FLOATS}
    made |= {f"{name} {F.__name__}": reduction._kernel(name, F)[0] for name in ("sum", "max") for F in FLOATS}
    made |= {f"softmax {n}": softmax_kernel("softmax", np.float32, n) for n in (1, 4)}
    made |= {f"sort {way} {n}": k for way in (False, True) for n, k in enumerate(sorting._kernels(way, np.float32))}
    on_device = functools.partial(cuda.jit, device=True)
    own = {name: cuda.jit(for_numba(kernel.py_func, on_device, {})) for name, kernel in made.items()}
    return {name: described(kernel) for name, kernel in own.items()}


def test_descriptions_are_those_of_another_process_and_no_two_kernels_have_one():
    here = descriptions()
    assert len(set(here.values())) == len(here) and not any(" at 0x" in text for text in here.values())
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    told = subprocess.run(
        [sys.executable, "-c", "import json, test_numba_code as t; print(json.dumps(t.descriptions()))"],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(told.stdout) == here
