"""What a parameter holds and what its update costs: the optimizer's step on meta, one parameter at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from numbers import Number

from minidl.kernels import meta
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.nn.parameter import Parameter
from minidl.optim import Optimizer
from minidl.parallel.contracts import make_optimizer
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


def with_updates(
    parameters: Sequence[Parameter], profiles: Sequence[ParameterProfile], optimizer: Callable, updates: Remembered
) -> tuple[tuple[ParameterProfile, ...], str]:
    """The profiles of a block's parameters, with what the optimizer makes of each that has a gradient; and its name.

    updates: where they are looked up that are known.
    """
    stepper = make_optimizer(optimizer, parameters)
    groups, updated = stepper.param_groups, dict(zip(parameters, profiles, strict=True))
    for group in groups:
        for p in group["params"]:
            if updated[p].found:
                key = _key(stepper, group, p)
                make = partial(_update, stepper, group, p)
                updated[p] = replace(updated[p], **(updates.get(key, make) if key else make()))
    return tuple(updated.values()), type(stepper).__name__


def _key(stepper: Optimizer, group: dict, p: Parameter) -> Hashable | None:
    """What determines the update of `p`; None where nobody knows."""
    kind, options = type(stepper), [(name, value) for name, value in group.items() if name != "params"]
    parts = chain.from_iterable(value if type(value) is tuple else (value,) for _, value in options)
    if not kind.__module__.startswith("minidl.") or not all(type(part) in PLAIN for part in parts):
        return None
    return kind, kind.update, kind.squares, tuple(options), p.shape, p.dtype


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
