"""What a builder is, and one with other arguments."""

from collections.abc import Callable
from inspect import signature

from minidl.nn import Sequential

Builder = Callable[..., Sequential]


def with_changes(name: str, build: Builder, changes: dict) -> Builder:
    """The builder `mesh -> Sequential` that gives `build` these arguments too; without a mesh nothing is split.

    ValueError, which lists what there is, for an argument that `build`, called `name`, does not have.
    """
    known = [argument for argument in signature(build).parameters if argument != "mesh"]
    for argument in changes:
        if argument not in known:
            raise ValueError(f"{name} has no {argument}: it has {', '.join(known)}")
    return lambda mesh=None: build(mesh=mesh, **changes)
