"""Signatures: by which blocks that are built alike are known as such, in a chain and from one chain to the next."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.parallel.group import ProcessGroup
from minidl.tensor import Tensor

PLAIN = {type(None), bool, int, float, str}


class Signature:
    """Equal for two modules only if they are built alike: types, options and parameter shapes, all the way down.

    lasting: it says all of that. Else the module has a part of which only its identity is known, or code of the user's
    own, which may call anything: then it holds for the modules of one chain alone.
    """

    __slots__ = ("hash", "lasting", "parts")

    def __init__(self, parts: Hashable, lasting: bool):
        self.parts, self.lasting, self.hash = parts, lasting, hash(parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self.parts == other.parts

    def __hash__(self) -> int:
        return self.hash  # found once: there are many parts


def signature(module: Module) -> Signature:
    walk = _Walk()
    return Signature(walk.module(module), walk.lasting)


class _Walk:
    def __init__(self):
        self.lasting = True
        self.tensors: dict[int, int] = {}  # by identity, in the order in which they come: what is tied, is known

    def module(self, module: Module) -> tuple:
        kind = type(module)
        own = kind.__module__.startswith("minidl.") and not (module._pre_hooks or module._hooks)
        self.lasting = self.lasting and own
        return kind, kind.forward, module.training, *self.fields(module)

    def fields(self, thing) -> list[tuple]:
        return [(name, value if type(value) in PLAIN else self.value(value)) for name, value in vars(thing).items()]

    def value(self, value) -> Hashable:
        if type(value) in PLAIN:
            return value
        if isinstance(value, Module):
            return self.module(value)
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, tuple | list):
            return type(value), *map(self.value, value)
        if isinstance(value, ProcessGroup):
            return type(value), value.rank, value.size, value.axes
        if isinstance(value, np.dtype):
            return value
        if type(value).__module__.startswith("minidl.") and hasattr(value, "__dict__"):
            return type(value), *self.fields(value)
        self.lasting = False
        return id(value)

    def tensor(self, tensor: Tensor) -> tuple:
        number = self.tensors.setdefault(id(tensor), len(self.tensors))
        found = type(tensor), number, tensor.shape, tensor.dtype, tensor.requires_grad
        return (*found, tensor.cut, tensor.summed_over) if isinstance(tensor, Parameter) else found
