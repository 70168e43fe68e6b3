"""Every kernel of the CPU says what it takes and gives, and changes its arguments only where it says so."""

import numpy as np
import pytest

from minidl.kernels import cpu
from minidl.kernels.cpu import fast
from minidl.kernels.meta import MetaArray
from tests.kernels.test_calls import NO_CALLS, SEVERAL, arguments
from tests.kernels.test_kernels import kernels

KERNELS = kernels(cpu)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_has_a_docstring(name):
    assert KERNELS[name].__doc__


def filled(argument, generator, kind):
    """Arrays for those without elements, whose numbers are probabilities, indices and variances as well."""
    if type(argument) in (list, tuple):
        return type(argument)(filled(each, generator, kind) for each in argument)
    if not isinstance(argument, MetaArray):
        return argument
    if argument.dtype.kind == "f":
        return generator.uniform(0.2, 0.8, argument.shape).astype(kind or argument.dtype)
    return np.zeros(argument.shape, argument.dtype)


def leaves(arguments):
    """The arrays among arguments, which may be lists and tuples of them."""
    for argument in arguments:
        if isinstance(argument, list | tuple):
            yield from leaves(argument)
        elif isinstance(argument, np.ndarray):
            yield argument


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", sorted(KERNELS.keys() - NO_CALLS - SEVERAL))
def test_a_kernel_changes_its_arguments_if_its_docstring_says_in_place_and_only_then(name, compiled, monkeypatch):
    monkeypatch.setattr(fast, "use_compiled", lambda x, least=0: compiled and x.dtype == np.float32 and x.size > 0)
    kind = np.int64 if name.startswith("bitwise") else None
    given = filled(list(arguments(name)), np.random.default_rng(0), kind)
    before = [x.copy() for x in leaves(given)]
    KERNELS[name](*given)
    changed = any((x != y).any() for x, y in zip(leaves(given), before, strict=True))
    assert changed == ("in place" in KERNELS[name].__doc__.lower())
