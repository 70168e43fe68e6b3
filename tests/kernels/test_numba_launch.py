"""What a launch hands to a compiled kernel is what Numba's own launch would, and if that went wrong it is noticed."""

import ctypes
import functools
import importlib
import logging
import re
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from ptx import AMPERE, compiled, missing

from minidl import notices

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


class Size(NamedTuple):
    height: int
    width: int


NUMBERS = [
    3, -(2**63), 2**63 - 1, 2.5, True, False, np.bool_(True), np.int8(-1), np.uint8(255), np.int32(-5),
    np.uint32(2**31), np.int64(-6), np.uint64(2**63), np.float16(0.5), np.float32(0.1), np.float64(0.1),
]  # fmt: skip
TUPLES = [
    (), (1,), (1, 2, 3), (np.float32(1), np.float32(2)), (True, False), (1, np.float32(2)), (2.5, np.uint32(7)),
    (1, (2, 3), (np.float32(4), ())), Size(5, 6),
]  # fmt: skip


@pytest.fixture
def launching(monkeypatch):
    """numba_launch.py, which keeps no machine code."""
    launching = importlib.import_module("minidl.kernels.cuda.numba_launch")
    monkeypatch.setattr(launching, "kept", lambda kernel: kernel)
    return launching


@pytest.fixture
def device(monkeypatch, launching):
    """numba_device.py, imported where there is none: its memory is the host's, and a launch runs the trial there."""
    from numba import cuda

    monkeypatch.setattr(cuda, "get_current_device", lambda: SimpleNamespace(name="none", MULTIPROCESSOR_COUNT=2))
    device = importlib.import_module("minidl.kernels.cuda.numba_device")
    kept = []

    def allocate(nbytes):
        kept.append(ctypes.create_string_buffer(nbytes))
        return device.Block(ctypes.addressof(kept[-1]), nbytes)

    monkeypatch.setattr(device, "_enter", lambda: None)
    stream = SimpleNamespace(handle="handle", synchronize=lambda: None)
    monkeypatch.setattr(device, "Stream", lambda: stream)
    monkeypatch.setattr(device, "allocate", allocate)
    monkeypatch.setattr(device, "release", lambda block: None)
    monkeypatch.setattr(
        device, "to_device", lambda b, at, x, _: ctypes.memmove(b.address + at, x.ctypes.data, x.nbytes)
    )
    monkeypatch.setattr(device, "to_host", lambda x, b, at, _: ctypes.memmove(x.ctypes.data, b.address + at, x.nbytes))
    monkeypatch.setattr(launching, "_compiled", lambda kernel, kinds: kernel)
    monkeypatch.setattr(notices, "_said", set())
    monkeypatch.setattr(device, "_way", functools.cache(device._way.__wrapped__))
    return device


def trial_on_the_host(stream, configuration, kernel, *flat):
    """What the trial does, of the flat numbers that it is compiled for, in memory of the host."""
    _, _, size, itemsize, out, shape, stride, *rest = flat
    assert (size, itemsize, shape, stride) == (4, 4, 4, 4) and stream == "handle" and len(rest) == 12
    x, count, factor, _, shift, flag = rest[4], *rest[7:]
    assert configuration.grid == (2, 1, 1) and configuration.block == (2, 1, 1)
    out, x = (np.ctypeslib.as_array((ctypes.c_float * count).from_address(place)) for place in (out, x))
    out[:] = flag * (factor * x + shift)


def elements(launching, dtype, size=5):
    return launching.Elements(0x7F0000001000, size, np.dtype(dtype))


def in_bytes(values) -> list[bytes]:
    """Each as it lies in the memory that a launch hands over; a plain int takes 8 bytes, a bool one, a float 8."""
    plain = {int: np.int64, bool: np.bool_, float: np.float64}
    values = [plain[type(v)](v) if type(v) in plain else v for v in values]
    return [v.tobytes() if isinstance(v, np.generic) else bytes(v) for v in values]


def arguments(launching):
    arrays = [elements(launching, dtype) for dtype in (np.float32, np.float64, np.int64, bool, np.uint8)]
    return [*arrays, elements(launching, np.float32, 0), *NUMBERS, *TUPLES]


def test_the_numbers_are_those_of_numbas_launch(launching):
    from numba.cuda.dispatcher import _Kernel
    from numba.cuda.typing.typeof import Purpose, typeof

    numba = SimpleNamespace(extensions=[])
    numba._prepare_args = lambda *given: _Kernel._prepare_args(numba, *given)
    for argument in arguments(launching):
        expected, kind = [], typeof(argument, Purpose.argument)
        _Kernel._prepare_args(numba, kind, argument, 0, [], expected)
        kinds, flat = launching.flattened([argument])
        assert launching._type_of(kinds[0]) == kind
        assert in_bytes(flat) == in_bytes(expected), argument
    assert len(launching.flattened(arguments(launching))[0]) == len(arguments(launching))


def test_cuda_core_takes_each_number_in_as_many_bytes_as_it_is_compiled_for(launching):
    from cuda.core._kernel_arg_handler import ParamHolder

    flat = launching.flattened(arguments(launching))[1]
    holder = ParamHolder(tuple(flat))
    places = (ctypes.c_void_p * len(flat)).from_address(holder.ptr)
    for place, expected in zip(places, in_bytes(flat), strict=True):
        assert ctypes.string_at(place, len(expected)) == expected


def test_arguments_of_different_types_are_of_different_kinds_and_those_of_one_type_of_one(launching):
    from numba.cuda.typing.typeof import Purpose, typeof

    given = [*arguments(launching), elements(launching, np.float32, 7), 4, (4, 5, 6), (np.int64(1),), [1]]
    of_type = {}
    for argument in given[:-1]:
        of_type.setdefault(typeof(argument, Purpose.argument), set()).add(launching.flattened([argument])[0])
    kinds = [kind for found in of_type.values() for kind in found]
    assert len(kinds) == len(set(kinds)) and set(launching.flattened(given[:-1])[0]) == {kind for (kind,) in kinds}
    for nonsense in given[-1], None, "text", (1, (None,)), (None,), 1j, np.complex64(1):
        with pytest.raises(TypeError, match="as an argument of a kernel"):
            launching._type_of(launching.flattened([nonsense])[0][0])


def test_a_kernel_is_compiled_once_for_each_of_the_types(launching):
    class Kernel:
        def __init__(self):
            self.made = []

        def compile(self, types):
            self.made.append(types)
            function = SimpleNamespace(kernel=(self, len(self.made)))
            return SimpleNamespace(_codelibrary=SimpleNamespace(get_cufunc=lambda: function))

    kernels = Kernel(), Kernel()
    kinds = [launching.flattened([elements(launching, d), n])[0] for d in (np.float32, np.float64) for n in (1, True)]
    for _ in range(2):
        for kernel in kernels:
            assert [launching._compiled(kernel, k) for k in kinds] == [(kernel, n) for n in (1, 2, 3, 4)]


def test_a_grid_is_described_once_and_may_be_of_numpys_integers(launching):
    assert launching._configuration((2, 3), 4) is launching._configuration((2, 3), 4)
    assert launching._configuration(np.int64(2), (np.int32(4), 2)).block == (4, 2, 1)


def test_the_machine_code_takes_as_many_numbers_of_as_many_bytes(launching):
    given = launching.trial_arguments(elements(launching, np.float32), elements(launching, np.float32))
    kinds, flat = launching.flattened(given)
    ptx = compiled(launching.trial.py_func, tuple(map(launching._type_of, kinds)), AMPERE).ptx
    parameters = re.findall(r"\.param \.[a-z](\d+)", ptx[ptx.index(".entry") : ptx.index("{", ptx.index(".entry"))])
    assert [int(bits) // 8 for bits in parameters] == [len(value) for value in in_bytes(flat)]


def test_what_computes_the_right_thing_is_taken_without_a_word(launching, device, monkeypatch, caplog):
    monkeypatch.setattr(launching, "launch_flat", trial_on_the_host)
    assert device._way() is launching.launch and not caplog.records


def refused(*arguments):
    raise TypeError("an argument too few")


def computes_nothing(*arguments):
    pass


@pytest.mark.parametrize("wrong, why", [(refused, "an argument too few"), (computes_nothing, "something else")])
def test_what_does_not_leaves_the_launches_to_numba_and_says_so_once(
    launching, device, monkeypatch, caplog, wrong, why
):
    monkeypatch.setattr(launching, "launch_flat", wrong)
    seen = []

    class Kernel:
        def __getitem__(self, configuration):
            return lambda *arguments: seen.append((configuration, arguments))

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            device.launch(Kernel(), 2, (3, 1), SimpleNamespace(handle="handle"), [1, True])
    assert seen == [((2, (3, 1), "handle"), (1, True))] * 2
    assert len(caplog.records) == 1 and why in caplog.text


def test_an_error_of_the_driver_is_one_sentence(device, monkeypatch):
    from cuda.core._utils.cuda_utils import CUDAError
    from numba.cuda.cudadrv.driver import CudaAPIError

    for error, sentence in (
        (
            CUDAError("CUDA_ERROR_INVALID_VALUE: One of the parameters is not in range. More."),
            "parameters is not in range",
        ),
        (
            CudaAPIError(700, "Call to cuLaunchKernelEx results in CUDA_ERROR_ILLEGAL_ADDRESS"),
            "CUDA_ERROR_ILLEGAL_ADDRESS",
        ),
    ):

        def launch(*arguments, error=error):
            raise error

        monkeypatch.setattr(device, "_way", lambda launch=launch: launch)
        with pytest.raises(RuntimeError, match=rf"^the GPU cannot go on: .*{sentence}$"):
            device.launch(None, 1, 1, SimpleNamespace(handle="handle"), [])
