"""What a builder is, and one with other arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature

from minidl.nn import Sequential

Builder = Callable[..., Sequential]


@dataclass(frozen=True)
class ChangedBuilder:
    """A builder `mesh -> Sequential` that gives `build` these arguments too; without a mesh nothing is split.

    types: of these arguments: 4 and 4.0 are equal, and only one of them is a number of layers.
    """

    build: Builder
    changes: tuple[tuple[str, object], ...]
    types: tuple[type, ...]

    def __call__(self, mesh=None) -> Sequential:
        return self.build(mesh=mesh, **dict(self.changes))

    @property
    def function(self) -> Callable:
        """What is called in the end."""
        found = self.build
        while isinstance(found, partial):
            found = found.func
        return found


def with_changes(name: str, build: Builder, changes: dict) -> Builder:
    """The builder that gives `build` these arguments too.

    ValueError, which lists what there is, for an argument that `build`, called `name`, does not have.
    """
    known = [argument for argument in signature(build).parameters if argument != "mesh"]
    for argument in changes:
        if argument not in known:
            raise ValueError(f"{name} has no {argument}: it has {', '.join(known)}")
    return ChangedBuilder(build, tuple(changes.items()), tuple(map(type, changes.values())))
