"""What a builder is, and one with other arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

from minidl.nn import Sequential

Builder = Callable[..., Sequential]


@dataclass(frozen=True)
class Changed:
    """A builder `mesh -> Sequential` that gives `build` these arguments too; without a mesh nothing is split.

    Two that are equal build alike.
    """

    build: Builder
    changes: tuple[tuple[str, object], ...]

    def __call__(self, mesh=None) -> Sequential:
        return self.build(mesh=mesh, **dict(self.changes))


def with_changes(name: str, build: Builder, changes: dict) -> Builder:
    """The builder that gives `build` these arguments too.

    ValueError, which lists what there is, for an argument that `build`, called `name`, does not have.
    """
    known = [argument for argument in signature(build).parameters if argument != "mesh"]
    for argument in changes:
        if argument not in known:
            raise ValueError(f"{name} has no {argument}: it has {', '.join(known)}")
    return Changed(build, tuple(changes.items()))
