"""Optimizer: what all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Number

import numpy as np

from minidl.grad_mode import enable_grad
from minidl.kernels import BY_ARRAY, beside, for_array
from minidl.mutation import changed
from minidl.nn.parameter import Parameter
from minidl.tensor import Tensor

Params = Iterable[Parameter] | Iterable[dict]  # parameters, or groups of them
NOT_OPTIONS = {"params", "initial_lr", "scheduled_lr", "by_hand"}  # of a group; the rates are those of `learning_rates`


class Optimizer:
    """Changes parameters by their gradients.

    A subclass writes `update`, elementwise on flat arrays, so that a slice of a parameter can be updated on its own
    with a slice of its gradient and a state of its own. One whose update also takes norms of the whole parameter says
    in `norms` how many, and writes `squares`: the sums of squares of the parts are added up before the update. One that
    takes parameters in their shape says that it is `whole`; where ranks share a parameter it is refused. Beside
    lr and weight_decay, options in `not_negative` are refused below 0, and those in `below_one`, the shares of old
    values that averages keep, or pairs of them, outside of [0, 1).

    params: parameters, or groups of them: dicts with "params" and with options of their own.
    defaults: the options of groups that do not give them; the `locals()` of a constructor will do.
    param_groups: the groups as dicts with all options, which may be set between steps.
    schedulers: those of the learning rates, in the order in which they were made.
    """

    norms = 0
    whole = False
    not_negative: tuple[str, ...] = ()
    below_one: tuple[str, ...] = ()

    def __init__(self, params: Params, defaults: dict):
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(f"the optimizer needs a list of nn.Parameters or of groups, not a {type(params).__name__}")
        options = {name: value for name, value in defaults.items() if name not in ("self", "params", "__class__")}
        self.defaults = {"maximize": False, **options}
        self.param_groups: list[dict] = []
        self.schedulers: list = []
        self.state: dict[Parameter, dict] = {}
        groups = list(params)
        if not groups:
            raise ValueError("the optimizer got no parameters")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict) -> None:
        """Update the parameters `group["params"]` as well, with the options in `group`, else the defaults.

        Schedulers go on from the group's own rate; ValueError where one has options for each group, and none for this.
        """
        where = f"parameter group {len(self.param_groups)}"
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f"{where} must be a dict with 'params', not {group!r}")
        unknown = group.keys() - self.defaults.keys() - NOT_OPTIONS
        if unknown:
            raise ValueError(
                f"{where} has the unknown option {', '.join(sorted(map(str, unknown)))}: "
                f"the options of {type(self).__name__} are {', '.join(self.defaults)}"
            )
        given = group["params"]
        options = {**self.defaults, **group, "params": [given] if isinstance(given, Tensor) else list(given)}
        self.check(options)
        seen = set(self.parameters)
        for i, parameter in enumerate(options["params"]):
            if not isinstance(parameter, Parameter):
                raise TypeError(f"the optimizer needs nn.Parameters, number {i} is a {type(parameter).__name__}")
            if self.whole and not self.updates_part(parameter):
                axes = dict.fromkeys(str(axis) for split in parameter.cut.splits for axis in split.axes)
                name, over = parameter.name or f"number {i}", " and ".join(axes) or "ranks"
                raise ValueError(f"{type(self).__name__} takes whole parameters, and {name} is split over {over}")
            if parameter in seen:
                raise ValueError(f"parameter {parameter.name or i} of {where} is given twice")
            seen.add(parameter)
        for scheduler in self.schedulers:
            scheduler.check_groups(len(self.param_groups) + 1)
        self.param_groups.append(options)
        self.state.update((parameter, {}) for parameter in options["params"])

    def check(self, options: dict) -> None:
        """ValueError for options of a group that cannot work."""
        for name in ("lr", "weight_decay", *self.not_negative):
            if name in options:
                require(options[name] >= 0, f"{name}={options[name]}, it must not be negative")
        for name in self.below_one:
            value = options[name]
            for share in value if isinstance(value, tuple | list) else (value,):
                require(0 <= share < 1, f"{name}={value}, it must be at least 0 and below 1")

    def updates_part(self, parameter: Parameter) -> bool:
        """Whether a `whole` update can do with the part of the parameter that this rank holds."""
        return parameter.cut.is_whole

    def state_size(self, key: str, parameter: Parameter) -> int:
        """The elements of an array of a parameter's state."""
        return parameter.updated.size

    def update(self, parameter, gradient, state: dict, options: dict, scale: float, *norms: float) -> None:
        """Change the 1-D array `parameter`, of its own shape if `whole`, in place by `gradient` times `scale`.

        `state` starts empty. The update keeps in it 1-D arrays as long as `parameter`, and numbers. options: those of
        the group. norms: the roots of what `squares` gave, summed over all parts of the parameter.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def squares(self, parameter, gradient, state: dict, options: dict, scale: float) -> tuple[float, ...]:
        """`norms` sums of squares over this part of the parameter. Called once before each update."""
        raise NotImplementedError(f"{type(self).__name__} has no squares")

    def step(
        self, closure: Callable | None = None, *, scale: float = 1.0, squares: np.ndarray | None = None
    ) -> object | None:
        """Update every parameter that has a gradient, by the gradient times `scale`; the gradients stay as they are.

        closure: computes the loss and the gradients; it is called first, and what it returns is returned. Of a
        parameter, only the part `updated` here is updated, and only for that a state is kept. squares: what
        `measure(scale)` gave, summed over the ranks that hold parts of the parameters; None where none but this does.
        """
        loss = None
        if closure is not None:
            if not callable(closure):
                raise TypeError(f"step needs a closure, a function that computes the loss, not {closure!r}")
            with enable_grad():
                loss = closure()
        if self.norms and squares is None:
            squares = self.measure(scale)
        for i, part in self._parts(scale):
            self.update(*part, *(map(math.sqrt, squares[i]) if self.norms else ()))
            changed(part[0])  # this part of the parameter
        return loss

    def measure(self, scale: float = 1.0) -> np.ndarray:
        """Sums of squares for the norms that `step(scale)` takes: (parameters, norms), float64."""
        found = np.zeros((len(self.parameters), self.norms))
        for i, part in self._parts(scale) if self.norms else ():
            found[i] = self.squares(*part)
        return found

    def _parts(self, scale: float) -> Iterator[tuple[int, tuple]]:
        """The number of each parameter that is updated, and the arguments of `update` for it."""
        members = ((group, parameter) for group in self.param_groups for parameter in group["params"])
        for i, (options, parameter) in enumerate(members):
            if parameter.grad is None or not parameter.requires_grad:
                continue
            if parameter.grad.shape != parameter.shape:
                raise ValueError(f"parameter {i} has shape {parameter.shape}, its gradient {parameter.grad.shape}")
            if not self.whole:
                p, gradient = parameter.updated_values, parameter.updated_gradient
            elif parameter.share is None:
                p, gradient = parameter.data, parameter.grad.data
            else:
                raise ValueError(f"{type(self).__name__} takes whole parameters, and of number {i} this is a share")
            if p.size:
                state = self.state[parameter]
                for key, value in state.items():
                    if type(value) is not type(p) and type(value) in BY_ARRAY:  # the parameter has moved
                        state[key] = beside(p, value)
                yield i, (p, gradient, state, options, -scale if options["maximize"] else scale)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @property
    def parameters(self) -> list[Parameter]:
        """Those of all groups, in order."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @property
    def lr(self) -> float:
        """The learning rate of all groups; ValueError where they differ. It may be set, for all groups."""
        rates = {group["lr"] for group in self.param_groups}
        if len(rates) > 1:
            raise ValueError(f"the groups have the learning rates {sorted(rates)}: see param_groups")
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, lr: float) -> None:
        for group in self.param_groups:
            group["lr"] = lr

    @property
    def state_bytes(self) -> int:
        """Bytes of the arrays in the state, which exists from the first step on."""
        values = (value for state in self.state.values() for value in state.values())
        return sum(value.nbytes for value in values if not isinstance(value, Number))

    def state_dict(self) -> dict:
        """{"state": {name: {"momentum": array, …}}, "param_groups": [{"lr": …, "params": [name, …]}]}, flat arrays.

        A parameter's name is its index if any has none or two have the same. The arrays belong to the
        part of each parameter that is `updated` here. They are the host's: those on a GPU are copied, others not.
        """
        names = names_of(self.parameters)
        state = {names[p]: {key: _on_host(value) for key, value in state.items()} for p, state in self.state.items()}
        groups = [{**group, "params": [names[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict) -> None:
        """Copy what `state_dict` gave. ValueError if it is of another optimizer, or of other parameters or groups.

        Where the parameters have no names, here or there, they are taken in their order.
        """
        check_state("optimizer", saved, {"state": dict, "param_groups": list})
        for group, other in zip(self.param_groups, saved["param_groups"], strict=False):
            check_state("parameter group", other, {"params": list})
            needed, given = (", ".join(sorted(map(str, found.keys() - NOT_OPTIONS))) for found in (group, other))
            if needed != given:
                raise ValueError(f"this state is no {type(self).__name__}'s: its options are {given}, not {needed}")
        names = names_of(self.parameters)
        ours = [[names[p] for p in group["params"]] for group in self.param_groups]
        theirs = [list(group["params"]) for group in saved["param_groups"]]
        if _nameless(ours) or _nameless(theirs):
            if [len(group) for group in ours] == [len(group) for group in theirs]:
                theirs_of = dict(zip(sum(ours, []), sum(theirs, []), strict=True))
                names, ours = {p: theirs_of[name] for p, name in names.items()}, theirs
        if ours != theirs:
            raise ValueError(f"the optimizer state has the parameter groups {theirs}, this optimizer {ours}")
        for parameter, name in names.items():
            if not isinstance(saved["state"].get(name), dict):
                raise ValueError(f"the optimizer state has nothing of the parameter {name}")
            for key, value in saved["state"][name].items():
                if isinstance(value, Number):
                    continue
                if type(value) not in BY_ARRAY:
                    raise ValueError(f"{key} of {name} is a {type(value).__name__}, and no number or array")
                if value.size != (size := self.state_size(key, parameter)):
                    raise ValueError(f"{key} of {name} has {value.size} elements, the parameter {size}")
        for parameter, name in names.items():
            self.state[parameter] = {key: _copy(parameter.data, value) for key, value in saved["state"][name].items()}
        for group, other in zip(self.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in other.items() if key != "params"})

    def __repr__(self) -> str:
        groups = (
            f"{len(group['params'])} parameters, "
            + ", ".join(f"{key}={value}" for key, value in group.items() if key not in NOT_OPTIONS)
            for group in self.param_groups
        )
        return f"{type(self).__name__}({'; '.join(groups)})"


def names_of(parameters: list[Parameter]) -> dict[Parameter, str]:
    """The parameters' names; their indices if any has none or two have the same."""
    names = [parameter.name for parameter in parameters]
    if not all(names) or len(set(names)) < len(names):
        names = [str(i) for i in range(len(names))]
    return dict(zip(parameters, names, strict=True))


def _nameless(groups: list[list[str]]) -> bool:
    return all(str(name).isdigit() for group in groups for name in group)


def zeros_for(x):
    """A new array of zeros, of the shape, dtype and device of the array `x`."""
    return for_array(x).full(x.shape, 0, x.dtype)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def check_state(whose: str, state: object, kinds: dict[str, type]) -> None:
    """ValueError unless `state` is a dict that has a value of its kind for each of these keys."""
    if not isinstance(state, dict):
        raise ValueError(f"this is no {whose}'s state: it is a {type(state).__name__}, and no dict")
    for key, kind in kinds.items():
        if not isinstance(state.get(key), kind):
            raise ValueError(f"this is no {whose}'s state: it has no {key!r} that is of type {kind.__name__}")


def _copy(parameter, value):
    """A number, or a copy of an array on the device of the array `parameter`."""
    if isinstance(value, Number):
        return value
    return for_array(value).copy(value) if type(value) is type(parameter) else beside(parameter, value)


def _on_host(value):
    return for_array(value).to_numpy(value) if type(value) in BY_ARRAY else value
