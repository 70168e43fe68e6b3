"""Nested values: in tuples, lists and dicts, as a data set's samples or a function's results may be."""

from collections.abc import Callable, Iterator


def map_leaves(function: Callable, tree):
    """The tuples, lists and dicts of `tree` with `function(leaf)` in place of everything else in them."""
    if isinstance(tree, dict):
        return {key: map_leaves(function, value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return sequence_like(tree, [map_leaves(function, part) for part in tree])
    return function(tree)


def leaves(tree) -> Iterator:
    """What `map_leaves` would call its function with."""
    if isinstance(tree, (dict, tuple, list)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(part)
    else:
        yield tree


def sequence_like(example: tuple | list, items: list) -> tuple | list:
    """The items as a list, a tuple or a named tuple, as `example` is."""
    return type(example)(*items) if hasattr(example, "_fields") else type(example)(items)
