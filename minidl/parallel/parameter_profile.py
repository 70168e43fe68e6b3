"""What a parameter holds and what its update costs: the optimizer's step on meta, one parameter at a time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from numbers import Number

from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.nn.parameter import Parameter
from minidl.optim import Optimizer
from minidl.parallel.layout import USUAL, Reduction
from minidl.parallel.mesh import REPLICAS
from minidl.parallel.remembered import Remembered
from minidl.parallel.signature import PLAIN
from minidl.tensor import Tensor


@dataclass(frozen=True)
class ParameterProfile:
    """A parameter of a block: its elements and bytes, and what the optimizer makes of it. trained: it wants a gradient.

    found: the backward of its block finds one. reduction: over which ranks that is summed.

    measure: the calls that find the `squares`, so many sums of squares that the update takes. update: the calls of the
    update. state_bytes: what is kept of it. whole: the update takes all of the parameter. All empty where it is not
    trained.
    """

    elements: int
    nbytes: int
    trained: bool
    found: bool = False
    measure: tuple[KernelCall, ...] = ()
    update: tuple[KernelCall, ...] = ()
    state_bytes: int = 0
    squares: int = 0
    whole: bool = False
    reduction: Reduction = USUAL


def reduction_of(p: Parameter) -> Reduction:
    """Over which ranks the gradient of `p` is summed: not over those that hold other parts of it."""
    split = {axis for one in p.cut.splits for axis in one.axes}
    return Reduction(tuple(axis for axis in REPLICAS if axis not in split), tuple(p.summed_over))


class Updates:
    """What a block's optimizer makes of its parameters: of each that has a gradient.

    key: equal where the optimizer of another block makes the same of its own; None where nobody knows.
    """

    def __init__(self, stepper: Optimizer, parameters: Sequence[Parameter], profiles: Sequence[ParameterProfile]):
        self.stepper, self.profiles = stepper, dict(zip(parameters, profiles, strict=True))
        found = [(group, p) for group in stepper.param_groups for p in group["params"] if self.profiles[p].found]
        common = {id(group): _group_key(stepper, group) for group in stepper.param_groups}
        self.found = [(group, p, (common[id(group)], p.shape, p.dtype)) for group, p in found]
        self.key = None if None in common.values() else (type(stepper), *(key for _, _, key in self.found))

    def of(self, known: Remembered) -> tuple[ParameterProfile, ...]:
        """The profiles with the updates; known: where those are found that were made before."""
        groups = self.stepper.param_groups
        for group, p, key in self.found:
            make = partial(_update, self.stepper, group, p)
            self.profiles[p] = replace(self.profiles[p], **(make() if self.key is None else known.get(key, make)))
        self.stepper.param_groups = groups
        return tuple(self.profiles.values())


def _group_key(stepper: Optimizer, group: dict) -> Hashable | None:
    """What determines, beside its shape, the update of a parameter of a group; None where nobody knows."""
    kind, options = type(stepper), tuple((name, value) for name, value in group.items() if name != "params")
    parts = chain.from_iterable(value if type(value) is tuple else (value,) for _, value in options)
    if not kind.__module__.startswith("minidl.") or not all(type(part) in PLAIN for part in parts):
        return None
    return kind, kind.update, kind.squares, options


def _update(stepper: Optimizer, group: dict, p: Parameter) -> dict[str, object]:
    """The fields of its profile that tell of the update of `p`, the only parameter that has a gradient."""
    stepper.param_groups = [{**group, "params": [p]}]
    p.grad = Tensor(MetaArray(p.shape, p.dtype))
    stepper.step()  # makes the state
    with meta.record() as measure:
        squares = stepper.measure()
    with meta.record() as update:
        stepper.step(squares=squares)
    p.grad = None
    kept = sum(value.nbytes for value in stepper.state[p].values() if not isinstance(value, Number))
    return dict(
        measure=tuple(measure), update=tuple(update), state_bytes=kept, squares=stepper.norms, whole=stepper.whole
    )
