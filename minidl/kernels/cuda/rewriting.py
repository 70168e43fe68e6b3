"""Kernels as the emulator runs them: copies that yield where threads wait for each other.

The syntax tree of a kernel is changed and compiled anew, with the line numbers of the text, so that a debugger finds
it. A function that kernels call is changed too, and becomes a generator if threads wait in it.
"""

import ast
import functools
import inspect
import itertools
import math
import textwrap
from collections.abc import Callable
from types import FunctionType, SimpleNamespace

import numpy as np

WAITS = ("syncthreads", "shfl_down_sync", "shfl_xor_sync")


def wait(*arguments):
    """What WAITS are outside of kernels."""
    raise RuntimeError("threads can wait for each other only in a kernel, or in a device function that a kernel calls")


class Placed:
    """What has methods that are told, as their last argument, at which place in the text they are called."""


class Writing:
    """What has methods that write to the arrays that they are given."""


class DeviceFunction:
    """A function that kernels call. stepped: what emulated ones call, a generator where `waits`, because threads wait
    for each other in it.
    """

    device = True

    def __init__(self, function: Callable, options: dict):
        functools.update_wrapper(self, function)
        self.py_func, self.targetoptions = function, options

    @functools.cached_property
    def _rewritten(self) -> tuple[Callable, bool, frozenset[str]]:
        same = self.py_func
        if same.__name__ != "<lambda>":  # a function of numbers, whose text nobody finds
            return rewrite(same)
        safe = FunctionType(same.__code__, _globals(same), same.__name__, same.__defaults__, same.__closure__)
        return safe, False, frozenset()

    @property
    def stepped(self) -> Callable:
        return self._rewritten[0]

    @property
    def waits(self) -> bool:
        return self._rewritten[1]

    def writes_to(self, arguments: list) -> list:
        """Which of the arguments of a call it writes to."""
        written = self._rewritten[2]
        kinds = list(inspect.signature(self.py_func).parameters.values())
        taken = itertools.chain(kinds, itertools.repeat(kinds[-1] if kinds else None))
        return [a for a, p in zip(arguments, taken, strict=False) if p.name in written or p.kind == p.VAR_POSITIONAL]

    def __call__(self, *arguments):
        return self.stepped(*arguments)


def rewrite(function: Callable) -> tuple[Callable, bool, frozenset[str]]:
    """A copy of `function` whose waits are yields; whether it has any; and the names of arrays that it writes to."""
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    used = inspect.getclosurevars(function)
    change = _Waits(function, {**function.__globals__, **used.nonlocals})
    change.visit(definition)
    devices = {n: f for n, f in (used.globals | used.nonlocals).items() if isinstance(f, DeviceFunction)}
    called = {n: f.stepped for n, f in devices.items() if f.py_func is not function}  # that of an attribute, perhaps
    outer = {**used.nonlocals, **called}
    made = ast.parse(f"def make({', '.join(outer)}):\n    return {definition.name}")
    made.body[0].body.insert(0, definition)
    code = compile(ast.fix_missing_locations(made), inspect.getfile(function), "exec")
    space: dict = {}
    exec(code, _globals(function), space)
    return space["make"](**outer), change.waits, frozenset(change.written)


def _globals(function: Callable) -> dict:
    """Those of `function`, with mathematics that gives NaN and infinities where Python's raises."""
    return {name: _math if value is math else value for name, value in function.__globals__.items()}


_math = SimpleNamespace(
    exp=np.exp, expm1=np.expm1, log=np.log, log1p=np.log1p, log2=np.log2, sqrt=np.sqrt, sin=np.sin, cos=np.cos,
    tanh=np.tanh, pow=np.power, erf=lambda x: type(x)(math.erf(x)), fabs=np.abs,
)  # fmt: skip


class _Waits(ast.NodeTransformer):
    """cuda.syncthreads() -> yield; f(x), for a device function that waits, -> yield from f(x)."""

    def __init__(self, function: Callable, names: dict):
        self.function, self.names, self.waits, self.written = function, names, False, set()

    def _meaning(self, node):
        """The object that an expression of names and attributes stands for, None for anything else."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            return getattr(self._meaning(node.value), node.attr, None)
        return None

    def visit_Call(self, node):
        self.generic_visit(node)
        called = self._meaning(node.func)
        name = getattr(node.func, "attr", "")
        if called is wait and name in WAITS:
            self.waits = True
            parts = [ast.Constant(name), ast.Constant(node.lineno), *node.args]
            return ast.copy_location(ast.Yield(ast.Tuple(parts, ast.Load())), node)
        owner = getattr(called, "__self__", None)
        if isinstance(owner, Placed):
            node.args.append(ast.Constant((self.names["__name__"], node.lineno, node.col_offset)))
        elif isinstance(owner, Writing):
            self._write_to(node.args)
        elif isinstance(called, DeviceFunction) and called.py_func is not self.function:
            self._write_to(called.writes_to(node.args))
        if isinstance(called, DeviceFunction) and called.waits:
            self.waits = True
            return ast.copy_location(ast.YieldFrom(node), node)
        return node

    def _write_to(self, arguments: list) -> None:
        self.written |= {a.id for a in arguments if isinstance(a, ast.Name)}

    def visit_Subscript(self, node):
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            self.written.add(node.value.id)
        return node
