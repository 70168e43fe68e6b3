"""ExponentialMovingAverage of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from minidl.kernels import beside
from minidl.mutation import changed
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.optim.optimizer import check_state, names_of
from minidl.tensor import Tensor


class ExponentialMovingAverage:
    """Averages of parameters that forget exponentially: a model that uses them often does better than the last one.

    average = decay * average + (1 - decay) * parameter         (at each update)

    It begins at the parameters as they are (Polyak and Juditsky 1992 average all of them alike; Kingma and Ba 2015,
    section 7.2, this way). warmup: in update t, from 1, decay is at most (1 + t) / (10 + t), so that the start is soon
    forgotten (as in TensorFlow, torch_ema and timm).

    parameters: a module, or parameters. Buffers, such as the running means of batch norm, stay as the model has them.
    """

    def __init__(self, parameters: Module | Iterable[Parameter], decay: float = 0.999, warmup: bool = False):
        if not 0 <= decay <= 1:
            raise ValueError(f"decay={decay}, it must be between 0 and 1")
        if isinstance(parameters, Module):
            self._parameters = dict(parameters.named_parameters())
        else:
            self._parameters = {name: p for p, name in names_of(list(parameters)).items()}
        if not self._parameters:
            raise ValueError("the average got no parameters")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.averages = {name: p.kernels.copy(p.data) for name, p in self._parameters.items()}

    def update(self) -> None:
        """Take the parameters as they are now into the averages: call it after each step of the optimizer."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        for name, parameter in self._parameters.items():
            k = parameter.kernels
            self.averages[name] = average = beside(parameter.data, self.averages[name])
            # average += (1 - decay) * (parameter - average)
            k.accumulate(average, k.multiply(k.subtract(parameter.data, average), 1 - decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the `with` block the parameters have their averages as values: to evaluate, or to save the model."""
        own = {name: p.kernels.copy(p.data) for name, p in self._parameters.items()}
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(own)

    def _write(self, values: dict) -> None:
        for name, parameter in self._parameters.items():
            parameter.kernels.assign(parameter.data, beside(parameter.data, values[name]))
            changed(parameter.data)

    def state_dict(self) -> dict:
        """{"updates": how many, "averages": {name: Tensor}}; they share memory with the averages."""
        return {"updates": self.updates, "averages": {name: Tensor(x) for name, x in self.averages.items()}}

    def load_state_dict(self, saved: dict) -> None:
        """Copy what `state_dict` gave; ValueError unless it has the same names and shapes."""
        check_state("average", saved, {"updates": int, "averages": dict})
        given = {name: x.data if isinstance(x, Tensor) else x for name, x in saved["averages"].items()}
        ours, theirs = ({name: tuple(x.shape) for name, x in found.items()} for found in (self.averages, given))
        if ours != theirs:
            raise ValueError(f"the saved averages are {theirs}, these are {ours}")
        self.updates = saved["updates"]
        for name, parameter in self._parameters.items():
            self.averages[name] = average = beside(parameter.data, self.averages[name])
            parameter.kernels.assign(average, beside(average, given[name]))
