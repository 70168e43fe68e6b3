"""Blocks that are alike: a chain has all of them, but one that is only to be priced has each kind once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager

from minidl.nn.module import Module
from minidl.nn.parameter import Stored

_one_of_each = False


class Touched(BaseException):
    """Whoever builds a chain looks into one of its blocks, or changes it: all are needed."""


@contextmanager
def one_of_each() -> Iterator[None]:
    """In the `with` block `repeated` makes one block of each kind, for which Alikes stand.

    Raises Touched where more than that is asked of one of these: the chain must then be built without this.
    """
    global _one_of_each
    outer, _one_of_each = _one_of_each, True
    try:
        yield
    finally:
        _one_of_each = outer


def repeated(count: int, make_block: Callable[[], Module]) -> list[Module]:
    """`count` blocks as `make_block()` makes them: each time alike, and anew, so that no two share anything."""
    return repeated_kinds([None] * count, lambda kind: make_block())


def repeated_kinds(kinds: Iterable[Hashable], make_block: Callable[[Hashable], Module]) -> list[Module]:
    """A block `make_block(kind)` for each of `kinds`; those of one kind are alike, and no two share anything."""
    if not _one_of_each:
        return [make_block(kind) for kind in kinds]
    made: dict[Hashable, Module] = {}
    blocks = []
    for kind in kinds:
        first = kind not in made
        if first:
            made[kind] = make_block(kind)
        blocks.append(Alike(made[kind], first))
    return blocks


class Alike(Module):
    """Stands for a block that is built as `made` is, in a chain that is only priced.

    Of those that stand for the same, the `first` has its parameters, buffers and modules; the others have none.
    """

    __slots__ = ("first", "made")

    def __init__(self, made: Module, first: bool):
        object.__setattr__(self, "made", made)
        object.__setattr__(self, "first", first)

    @property
    def __class__(self):
        """Who asks whether it is of a certain class is about to do something with it."""
        _touch()
        return Alike

    def __getattr__(self, name: str):
        _touch()
        return getattr(self.made, name)

    def __setattr__(self, name: str, value) -> None:
        _touch()
        super().__setattr__(name, value)

    def forward(self, *inputs, **options):
        _touch()
        return self.made(*inputs, **options)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        _touch()
        return self.made.named_children() if self.first else iter(())

    def named_modules(self, *, prefix: str = "") -> Iterator[tuple[str, Module]]:
        _touch()
        return self.made.named_modules(prefix=prefix) if self.first else iter(())

    def _named(self, kind: type, prefix: str, once: bool = True) -> Iterator[tuple[str, Stored]]:
        _touch()
        return self.made._named(kind, prefix, once) if self.first else iter(())


def _touch() -> None:
    if _one_of_each:
        raise Touched


def distinct(block: Module) -> Module:
    """The block itself, or that for which an Alike stands."""
    return block.made if type(block) is Alike else block
