"""Graph: kernel calls on numbered values, replayed, counted and printed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from os import PathLike

import numpy as np

from minidl.kernels import cpu, meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.nested import map_leaves
from minidl.static.memory_planning import Lifetime, assign_offsets
from minidl.tensor import Tensor


@dataclass
class Value:
    """What kernels take and give. kind: "input", "constant" (also arrays from outside, by reference) or "result"."""

    example: object
    kind: str

    @property
    def is_array(self) -> bool:
        return isinstance(self.example, np.ndarray)

    def __str__(self) -> str:
        if isinstance(self.example, np.ndarray | np.generic):
            return f"{self.example.dtype} {self.example.shape}"
        return getattr(self.example, "__name__", repr(self.example))


@dataclass
class Node:
    """One kernel call: the places of its arguments and of its results among the values.

    scope: the calls of modules inside which it was made, outermost first, each a number of its own and a name.
    """

    name: str
    kernel: Callable
    arguments: list[int]
    results: list[int]
    several: bool  # it gives a tuple
    scope: tuple[tuple[int, str], ...] = ()

    @property
    def takes_out(self) -> bool:
        """Whether the kernel can write its result into a buffer given to it."""
        return isinstance(self.kernel, np.ufunc) or "out" in inspect.signature(self.kernel).parameters


class Graph:
    """What a function computes; calling it with tensors like those it was captured with gives the function's result.

    nodes: the kernel calls in order. sources: for each the nodes it takes from, and inputs as -1 - their place. flops,
    bytes_moved: of one replay, by the kernels of the meta device.
    planned_bytes: the block of memory that intermediate results share; unplanned_bytes: what these would take, each
    alone. Results of kernels that cannot write into a given buffer are not among them: they are freed after their last
    use.
    """

    def __init__(self, name: str, values: list[Value], nodes: list[Node], inputs: int, outputs: list[int], structure):
        self.name, self.values, self.nodes = name, values, nodes
        self.inputs, self.outputs, self.structure = list(range(inputs)), outputs, structure
        self.last_use, self.sources = self._last_uses(), self._sources()
        self._plan_memory()
        self._prepare()
        for value in values:  # the arrays of the example are needed no more, only their shapes
            if value.kind != "constant" and isinstance(value.example, np.ndarray | np.generic):
                value.example = np.broadcast_to(np.empty((), value.example.dtype), value.example.shape)

    def __call__(self, *inputs: Tensor):
        if len(inputs) != len(self.inputs):
            raise ValueError(f"{self.name} was captured with {len(self.inputs)} inputs, not {len(inputs)}")
        values = self._start.copy()
        for i, x in enumerate(inputs):
            expected = self.values[i].example
            if x.shape != expected.shape or x.dtype != expected.dtype or x.device != "cpu":
                raise ValueError(
                    f"{self.name}: input {i} was captured as {self.values[i]}, not {x.dtype} {x.shape} on {x.device}"
                )
            values[i] = x.data
        for kernel, arguments, result, several, dead in self._steps:
            found = kernel(*arguments(values))
            if several:
                for place, item in zip(result, found, strict=True):
                    values[place] = item
            else:
                values[result] = found
            for place in dead:
                values[place] = None
        tensors = [Tensor(np.asarray(values[place])) for place in self.outputs]
        return map_leaves(tensors.__getitem__, self.structure)

    # What is kept how long

    def _owner(self, place: int) -> int | None:
        """Which memory an array lies in, as the identity of its owner; None for what is no array."""
        value = self.values[place]
        return id(cpu.extent(value.example)[0]) if value.is_array else None

    def _last_uses(self) -> dict[int, int]:
        """For each piece of memory the last node that touches it, in whatever view; the end for that of a result."""
        last: dict[int, int] = {}
        for i, node in enumerate(self.nodes):
            for place in (*node.arguments, *node.results):
                if self.values[place].is_array:
                    last[self._owner(place)] = i
        for place in self.outputs:
            last[self._owner(place)] = len(self.nodes)
        return last

    def _sources(self) -> list[list[int]]:
        """What a kernel does in place is taken from it by all who read that memory later, in whatever view."""
        nothing = -1 - len(self.values)
        maker = {place: -1 - place for place in self.inputs}
        writer: dict[int | None, int] = {}  # of each memory, the last that worked in place
        found = []
        for i, node in enumerate(self.nodes):
            latest = [max(maker.get(p, nothing), writer.get(self._owner(p), nothing)) for p in node.arguments]
            found.append([j for j in dict.fromkeys(latest) if j != nothing])
            arrays = [p for p in node.arguments if self.values[p].is_array]
            changed = [p for p in node.results if p in arrays] if node.results else arrays[:1]
            writer |= {self._owner(place): i for place in changed}
            maker |= dict.fromkeys(node.results, i)
        return found

    def _plan_memory(self) -> None:
        """Give the results of kernels that take `out` places in one block of memory."""
        outside = {self._owner(i) for i, v in enumerate(self.values) if v.is_array and v.kind != "result"}
        seen, nodes, lifetimes = set(outside), [], []
        for i, node in enumerate(self.nodes):
            for place in node.results:
                owner, array = self._owner(place), self.values[place].example
                if owner is None or owner in seen:
                    continue
                seen.add(owner)
                inside = self.last_use[owner] < len(self.nodes)
                if inside and node.takes_out and array.ndim and array.flags.c_contiguous:
                    nodes.append(i)
                    lifetimes.append(Lifetime(array.nbytes, i, self.last_use[owner]))
        offsets, self.planned_bytes = assign_offsets(lifetimes)
        self.unplanned_bytes = sum(result.nbytes for result in lifetimes)
        self._block = np.empty(self.planned_bytes, np.uint8)
        self._out = {}
        for i, offset in zip(nodes, offsets, strict=True):
            array = self.values[self.nodes[i].results[0]].example
            self._out[i] = self._block[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)

    def _prepare(self) -> None:
        """The steps of a replay: kernel, getter of its arguments, places of its results, and what is dead after it."""
        self._start = [value.example if value.kind == "constant" else None for value in self.values]
        self._steps, nowhere = [], self._add_to_start(None)
        dead: list[list[int]] = [[] for _ in self.nodes]
        for place, value in enumerate(self.values):
            last = self.last_use.get(self._owner(place), len(self.nodes))
            if value.kind == "result" and last < len(self.nodes):
                dead[last].append(place)  # with all other views of that memory: one alone would keep it
        for i, node in enumerate(self.nodes):
            kernel, arguments = node.kernel, list(node.arguments)
            if i in self._out:
                out = self._add_to_start(self._out[i])
                if isinstance(kernel, np.ufunc):
                    arguments.append(out)  # the argument after the inputs
                else:
                    places = list(inspect.signature(kernel).parameters)
                    arguments += [nowhere] * (places.index("out") + 1 - len(arguments))
                    arguments[places.index("out")] = out
            get = itemgetter(*arguments) if len(arguments) > 1 else _single(arguments)
            results = tuple(node.results) if node.several else node.results[0] if node.results else nowhere
            self._steps.append((kernel, get, results, node.several, dead[i]))

    def _add_to_start(self, value) -> int:
        self._start.append(value)
        return len(self._start) - 1

    # Counting

    @cached_property
    def calls(self) -> list[list[KernelCall]]:
        """For each node, what the meta device says it costs."""
        found = []
        values = [_on_meta(value.example) for value in self.values]
        for node in self.nodes:
            kernel = node.kernel if node.name == "tuple" else getattr(meta, node.name)
            with meta.record() as calls:
                result = kernel(*(values[place] for place in node.arguments))
            for place, value in zip(node.results, result if node.several else (result,), strict=False):
                values[place] = value
            found.append(calls)
        return found

    @property
    def flops(self) -> int:
        return sum(call.flops for calls in self.calls for call in calls)

    @property
    def bytes_moved(self) -> int:
        return sum(call.bytes_read + call.bytes_written for calls in self.calls for call in calls)

    # Reading

    def draw(self, path: str | PathLike) -> None:
        """Write a picture of the graph, in the format that the ending of `path` names (.png, .svg, .pdf).

        A box is a kernel call, or in deep models all calls that a module makes, with the shapes of what it takes and
        gives. Constants are left out; results that are the function's are green.
        """
        from minidl.static.draw import draw  # matplotlib takes half a second: only who draws pays for it

        draw(self, path)

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {len(self.nodes)} kernel calls, {self.flops:,} FLOPs, {self.bytes_moved:,} bytes moved; "
            f"{self.planned_bytes:,} bytes are planned for results of {self.unplanned_bytes:,}"
        ]
        lines += [f"  %{i}: {self.values[i]}  input" for i in self.inputs]
        for node, calls in zip(self.nodes, self.calls, strict=True):
            results = ", ".join(f"%{place}" for place in node.results)
            shapes = ", ".join(str(self.values[place]) for place in node.results if node.name != "tuple")
            flops = sum(call.flops for call in calls)
            arguments = ", ".join(map(self._named, node.arguments))
            lines.append(f"  {results} = {node.name}({arguments})  {shapes}" + (f"  {flops:,} FLOPs" if flops else ""))
        return "\n".join([*lines, f"  return {', '.join(f'%{place}' for place in self.outputs)}"])

    def __repr__(self) -> str:
        return f"<graph {self.name} of {len(self.nodes)} kernel calls>"

    def _named(self, place: int) -> str:
        value = self.values[place]
        return f"%{place}" if value.kind != "constant" else f"[{value}]" if value.is_array else str(value)


def _single(arguments: list[int]) -> Callable:
    if not arguments:
        return lambda values: ()
    (place,) = arguments
    return lambda values: (values[place],)


def _on_meta(x):
    return MetaArray(x.shape, x.dtype) if isinstance(x, np.ndarray | np.generic) else x
