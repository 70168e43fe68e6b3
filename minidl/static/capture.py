"""`capture`: run a function once and record every kernel that it calls, forward or backward, in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

import numpy as np

from minidl.kernels import interposed
from minidl.kernels.cpu import updates
from minidl.nested import map_leaves
from minidl.nn.module import Module
from minidl.static.graph import Graph, Node, Value
from minidl.tensor import Tensor


def capture(function: Callable, *example: Tensor) -> Graph:
    """Record what `function` computes on the tensors `example`, as a Graph that gives the same for others like them.

    function: of tensors; gives a tensor, or a tuple, list or dict of tensors. It may go backward (`autograd.grad`) and
    return gradients. It must compute by ops, and always the same ones: Python's own decisions are made once, here.
    Parameters and other tensors from outside are read anew at each replay; what is done in place by ops (running
    statistics) is done at each replay, what Python does (setting `grad`, counting) is not; dropout and `randn` draw
    anew. ValueError: the function reads a value (`item`, `numpy`, `bool`), updates parameters by an optimizer, whose
    step count and learning rate change, or gives something else than tensors.
    """
    for i, x in enumerate(example):
        if not isinstance(x, Tensor) or x.device != "cpu":
            raise ValueError(f"capture: example {i} must be a tensor on the cpu, not {getattr(x, 'device', type(x))}")
    recorder = Recorder()
    example = _distinct(example)
    for x in example:
        recorder.input(x.data)
    with recorder.recording():
        result = function(*example)
    outputs: list[int] = []  # the places of the tensors of the result, which is built of their numbers here

    def number(x) -> int:
        if not isinstance(x, Tensor):
            raise ValueError(
                f"capture: the function must give tensors, or a tuple, list or dict of them, not {type(x)}"
            )
        outputs.append(recorder.place(x.data))
        return len(outputs) - 1

    structure = map_leaves(number, result)
    name = getattr(function, "__name__", type(function).__name__)
    return Graph(name, recorder.values, recorder.nodes, len(example), outputs, structure)


class Recorder:
    """Notes the calls of the CPU's kernels. An array is known by its identity; all are kept alive meanwhile."""

    def __init__(self):
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self.numbers: dict[int, int] = {}  # id(array) -> its place in values
        self.scope: tuple[tuple[int, str], ...] = ()  # of calls of modules, see Node
        self._modules: list[Module] = []  # that are being called
        self._calls = itertools.count()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Be told of the calls of the CPU's kernels, and of modules, inside the `with` block."""
        original = Module.__call__

        def told(module, *inputs, **options):
            with self._inside(module):
                return original(module, *inputs, **options)

        Module.__call__ = told
        try:
            with interposed(np.ndarray, self._noted):
                yield
        finally:
            Module.__call__ = original

    @contextmanager
    def _inside(self, module: Module) -> Iterator[None]:
        """While `module` is called; it goes by its name in the module that calls it, and its class."""
        names = (name for name, child in self._modules[-1].named_children() if child is module) if self._modules else ()
        label = " ".join([*itertools.islice(names, 1), type(module).__name__])
        before = self.scope
        self.scope = (*before, (next(self._calls), label))
        self._modules.append(module)
        try:
            yield
        finally:
            self._modules.pop()
            self.scope = before

    def _noted(self, name: str, kernel):
        """The kernel of that name, whose calls become nodes."""
        if not callable(kernel):
            return kernel
        if name in updates.__all__:
            raise ValueError(f"capture: {name} depends on the step; capture the gradients, and step outside")
        if name == "to_numpy":
            raise ValueError("capture: the function reads a value (item, numpy, bool): a replay could not follow it")
        if name == "extent":  # of no result
            return kernel

        @wraps(kernel)
        def noted(*args):
            places = [self.place(a) for a in args]
            result = kernel(*args)
            if name == "from_scalar" and result is args[0]:
                return result
            results = result if isinstance(result, tuple) else (result,)
            several = isinstance(result, tuple)
            written = [self._result(r, args) for r in results if several or r is not None]
            self.nodes.append(Node(name, kernel, places, written, several, self.scope))
            return result

        return noted

    def input(self, array) -> int:
        return self._add(array, Value(array, "input"))

    def _add(self, array, value: Value) -> int:
        if isinstance(array, np.ndarray | np.generic):
            self.numbers[id(array)] = len(self.values)
        self.values.append(value)
        return len(self.values) - 1

    def place(self, argument) -> int:
        """Where the argument of a kernel is among the values: an array that is known, or something constant."""
        if isinstance(argument, np.ndarray | np.generic) and id(argument) in self.numbers:
            return self.numbers[id(argument)]
        if isinstance(argument, tuple | list) and any(id(a) in self.numbers for a in argument):
            parts = [self.place(a) for a in argument]  # arrays to be concatenated, a key with index arrays
            place = self._add(argument, Value(argument, "result"))
            self.nodes.append(Node("tuple", lambda *items: items, parts, [place], False, self.scope))
            return place
        return self._add(argument, Value(argument, "constant"))

    def _result(self, array, args) -> int:
        """A kernel that works in place gives back one of its arguments."""
        for a in args:
            if a is array and array is not None:
                return self.numbers[id(array)]
        return self._add(array, Value(array, "result"))


def _distinct(example: tuple[Tensor, ...]) -> list[Tensor]:
    """The example with a copy in place of each array that is there already: arrays are told apart by their identity."""
    distinct, seen = [], set()
    for x in example:
        distinct.append(Tensor(x.data.copy(), x.requires_grad) if id(x.data) in seen else x)
        seen.add(id(x.data))
    return distinct
