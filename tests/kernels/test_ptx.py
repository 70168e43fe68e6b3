"""Kernels are compiled as for a GPU on a machine that has none, and what is bad for speed in them is found."""

import math

import numpy as np
import pytest
from ptx import AMPERE, HOPPER, compiled, missing, types_of

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

BOTH = pytest.mark.parametrize("capability", [AMPERE, HOPPER], ids=["sm_80", "sm_90"])
X, N = np.zeros(8, np.float32), np.uint32(8)


class DeviceFunction:
    """Stands for a device function of an emulator: nothing that Numba could compile."""

    device = True

    def __init__(self, py_func):
        self.py_func = py_func


# Stands for an emulator of Numba's `cuda`: what the kernels below are compiled with must not be this.
cuda = None
HALF = np.float32(0.5)


@DeviceFunction
def half(x):
    return HALF * x


@DeviceFunction
def half_of_exp(x):
    return half(math.exp(x))


def scale(x, n):
    i = np.uint32(cuda.grid(1))
    if i < n:
        x[i] = HALF * x[i] + x[i]


@BOTH
def test_a_kernel_is_compiled_for_the_gpu_asked_for(capability):
    kernel = compiled(scale, types_of([X, N]), capability)
    assert ".target sm_{}{}".format(*capability) in kernel.ptx and ".entry" in kernel.ptx
    assert "fma.rn.f32" in kernel.ptx and not kernel.has_f64
    assert 0 < kernel.registers < 32 and (kernel.spilled, kernel.stack, kernel.shared) == (0, 0, 0)


@BOTH
def test_a_literal_that_slips_into_double_precision_is_found(capability):
    def scale_in_double(x, n):
        i = np.uint32(cuda.grid(1))
        if i < n:
            x[i] = 0.5 * x[i] + x[i]

    assert compiled(scale_in_double, types_of([X, N]), capability).has_f64


def test_a_product_of_unsigned_integers_compared_with_a_signed_length_is_found():
    def first(x, n):
        i = np.uint32(cuda.blockIdx.x) * np.uint32(cuda.blockDim.x)  # of 64 bits, unsigned
        if i < n:
            x[i] = HALF

    assert compiled(first, types_of([X, 8]), AMPERE).has_f64
    assert not compiled(first, types_of([X, N]), AMPERE).has_f64


@BOTH
def test_a_local_array_with_an_index_unknown_when_compiled_is_found_on_the_stack(capability):
    def count(x, n):
        counts = cuda.local.array(256, np.float32)
        for i in range(256):
            counts[i] = np.float32(0)
        for i in range(n):
            counts[int(x[i])] += np.float32(1)
        for i in range(n):
            x[i] = counts[int(x[i])]

    assert compiled(count, types_of([X, N]), capability).stack == 256 * 4


def test_a_small_local_array_in_loops_of_constant_length_stays_in_registers():
    def twice(x):
        some = cuda.local.array(8, np.float32)
        for i in range(8):
            some[i] = x[i] + x[i]
        cuda.syncthreads()
        for i in range(8):
            x[i] = some[i]

    kernel = compiled(twice, types_of([X]), AMPERE)
    assert kernel.stack == 0 and ".local" not in kernel.ptx


@BOTH
def test_a_shared_array_is_counted(capability):
    threads = 128

    def reverse(x):
        block = cuda.shared.array(threads, np.float32)
        i = np.uint32(cuda.threadIdx.x)
        block[i] = x[i]
        cuda.syncthreads()
        x[i] = block[np.uint32(threads - 1) - i]

    assert compiled(reverse, types_of([X]), capability).shared == threads * 4


@BOTH
def test_device_functions_are_found_in_globals_and_in_the_closure(capability):
    def from_closure(f, also):
        def kernel(x, n):
            i = np.uint32(cuda.grid(1))
            if i < n:
                x[i] = also(f(x[i]))

        return kernel

    @DeviceFunction
    def one_more(x):
        return x + np.float32(1)

    def from_globals(x, n):
        i = np.uint32(cuda.grid(1))
        if i < n:
            x[i] = half_of_exp(x[i])

    for kernel in from_globals, from_closure(half_of_exp, one_more):
        ptx = compiled(kernel, types_of([X, N]), capability)
        assert "ex2.approx" in ptx.ptx and not ptx.has_f64


def test_the_same_kernel_can_be_compiled_for_one_gpu_after_another():
    def kernel(x):
        x[np.uint32(cuda.threadIdx.x)] = half_of_exp(x[np.uint32(cuda.threadIdx.x)])

    for capability in AMPERE, HOPPER, AMPERE:
        assert ".target sm_{}{}".format(*capability) in compiled(kernel, types_of([X]), capability).ptx


def test_fast_mathematics_reaches_device_functions():
    def kernel(x):
        x[np.uint32(cuda.threadIdx.x)] = half_of_exp(x[np.uint32(cuda.threadIdx.x)])

    exact, fast = (compiled(kernel, types_of([X]), AMPERE, fastmath=fast).ptx for fast in (False, True))
    assert "fma.rm.f32" in exact and "fma.rm.f32" not in fast


def test_registers_are_bounded_by_the_threads_of_a_block_and_what_does_not_fit_is_spilled():
    def many(x, n):
        some = cuda.local.array(128, np.float32)
        for i in range(128):
            some[i] = x[i]
        for _ in range(n):
            for i in range(128):
                some[i] = some[i] * some[(i + 1) % 128] + x[0]
        for i in range(128):
            x[i] = some[i]

    free = compiled(many, types_of([X, N]), AMPERE)
    bound = compiled(many, types_of([X, N]), AMPERE, launch_bounds=1024)
    assert bound.registers <= 64 and bound.registers <= free.registers


def test_types_are_those_of_a_launch():
    from numba.cuda import types

    arguments = [X[::2], np.zeros(3, np.int32), 3, 0.5, np.float32(0.5), np.uint32(3), True, (1, 2), (1, np.float32(2))]
    assert types_of(arguments) == (
        types.float32[::1],
        types.int32[::1],
        types.int64,
        types.float64,
        types.float32,
        types.uint32,
        types.boolean,
        types.UniTuple(types.int64, 2),
        types.Tuple((types.int64, types.float32)),
    )
    frozen = np.zeros(3, np.float32)
    frozen.flags.writeable = False
    assert types_of([frozen]) == (types.float32[::1],)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        types_of([np.zeros((2, 3), np.float32)])


def test_what_the_assembler_refuses_is_said():
    from ptx import assembled

    with pytest.raises(RuntimeError, match="ptxas: .*error"):
        assembled(".version 9.0\n.target sm_80\n.address_size 64\nnonsense", AMPERE)
