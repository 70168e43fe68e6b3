"""Modules that hold other modules in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from minidl.nn.module import Module


class ModuleList(Module):
    """Modules in order, found as `0`, `1`, …; it has no forward: another module runs them as it likes."""

    def __init__(self, modules: Iterable[Module] = ()):
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        for number, module in enumerate(modules, len(self)):
            if not isinstance(module, Module):
                raise TypeError(f"{type(self).__name__} needs modules, number {number} is a {type(module).__name__}")
            setattr(self, str(number), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int | slice) -> Module:
        found = list(self)[index]
        return found if isinstance(found, Module) else type(self)._of(found)

    def __setitem__(self, index: int, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} needs modules, not a {type(module).__name__}")
        names = [name for name, _ in self.named_children()]
        setattr(self, names[index], module)

    @classmethod
    def _of(cls, modules: list[Module]) -> ModuleList:
        return cls(modules)


class Sequential(ModuleList):
    """A chain of blocks: the output of each is the input of the next. Its parameters are named `0.weight`, …"""

    def __init__(self, *blocks: Module):
        super().__init__(blocks)

    @classmethod
    def _of(cls, modules: list[Module]) -> Sequential:
        return cls(*modules)

    @property
    def blocks(self) -> list[Module]:
        return list(self)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x
