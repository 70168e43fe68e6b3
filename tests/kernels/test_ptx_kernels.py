"""Every kernel of minidl/kernels/cuda is compiled as for a GPU, for what it is launched with; nothing in it is slow.

What is slow: float64 in a kernel of float32, division of integers of 64 bits, registers that spill, local arrays that
did not fit in registers, and so many registers that few threads find room.
"""

import pytest
from every_kernel import launched, used_by, written
from ptx import AMPERE, HOPPER, compiled, missing, types_of_launch

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

NAMES = sorted(written())
REGISTERS = {"elementwise": 32, "attention": 255, "attention_grad": 255, "tiled": 144}  # for a thread, by module
OTHERS = 64  # 1024 threads of 64 registers fill those of a multiprocessor
LARGE_ARGUMENTS = {"sin", "cos"}  # are reduced in float64: a branch that is seldom taken


@pytest.fixture(scope="module")
def launches():
    return launched()


def test_every_kernel_is_launched(launches):
    assert sorted(launches) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_compiled_for_all_it_is_launched_with_to_nothing_slow(launches, name):
    said = [
        f"{fault}: {name} of {described}, sm_{capability[0]}{capability[1]}"
        for number, (kernel, described) in enumerate(launches[name])
        for capability in ((AMPERE, HOPPER) if number == 0 else (AMPERE,))
        for fault in faults(name, kernel, described, capability)
    ]
    assert not said, "\n".join(said)


def faults(name, kernel, described, capability):
    types, used = types_of_launch(described), used_by(kernel)
    found = compiled(kernel.py_func, types, capability, **kernel.targetoptions)
    reduced = LARGE_ARGUMENTS & used
    if found.has_f64 and not reduced and "float64" not in str(types):
        yield "float64 where all is float32"
    if found.spilled:
        yield f"{found.spilled} bytes are spilled"
    if found.has_64_bit_division and "elementwise" not in name:
        yield "a place in 64 bits is divided"
    if found.stack:
        yield f"{found.stack} bytes of local arrays are not in registers"
    if (found.shared > 0) != ("shared" in used):
        yield f"{found.shared} bytes of shared memory"
    if found.registers > REGISTERS.get(name.split(".")[0], OTHERS):
        yield f"{found.registers} registers"
