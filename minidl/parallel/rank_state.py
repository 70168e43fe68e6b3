"""RankState: what a rank holds of a training, on its way to a file and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Number

import numpy as np

from minidl.kernels import for_array
from minidl.nn.cut import Cut, join
from minidl.nn.parameter import Parameter, Stored
from minidl.optim import Optimizer
from minidl.parallel.mesh import REPLICAS, Mesh
from minidl.parallel.runtime.stage import Stage
from minidl.tensor import Tensor


@dataclass(frozen=True)
class RankState:
    """The parts of parameters, of buffers, and of the optimizer's state that a rank holds after `step` steps.

    What several replicas have alike is with the first of them alone: parameters and a state that are not sharded.
    """

    step: int
    replica: int
    parameters: dict[str, tuple[np.ndarray, Cut]]
    buffers: dict[str, tuple[np.ndarray, Cut]]
    state: dict[str, tuple[dict[str, np.ndarray | Number], Cut]]


def take(step: int, stage: Stage, optimizer: Optimizer | None, mesh: Mesh) -> RankState:
    """What this rank holds now, on the host, where nothing is copied that lies there."""
    whole = [p for p in stage.counted if p not in stage.dropped and stage.is_first(p, REPLICAS, whole=True)]
    shares = [p for p in stage.counted if p in stage.dropped and stage.is_first(p, REPLICAS)]
    held = [*((p, p.numpy(), p.cut) for p in whole), *((p, _on_host(p.share[0]), p.updated) for p in shares)]
    updated = [p for p in stage.counted if stage.is_first(p, REPLICAS)] if optimizer else []
    states = ((p, optimizer.state[p]) for p in updated)
    return RankState(
        step,
        mesh.replica,
        {name: part for p, *part in held for name in stage.names(p)},
        {buffer.name: (buffer.numpy(), buffer.cut) for buffer in stage.buffers},
        {p.name: ({key: _on_host(value) for key, value in state.items()}, p.updated) for p, state in states},
    )


def restore(saved: dict, stage: Stage, optimizer: Optimizer | None, mesh: Mesh) -> None:
    """Have this rank hold its parts of what `merge` made, be it of another plan: the inverse of `take`.

    A replica that the plan of before did not have gets the buffers of the first one.
    """
    replicas, replica = [saved["model"], *saved["replicas"]], mesh.replica
    buffers = replicas[replica if replica < len(replicas) else 0]
    for p in stage.parameters:
        if p in stage.dropped:
            p.kernels.assign(p.share[0], _part(p, saved["model"][p.name].numpy()))
        else:
            _write(p, saved["model"])
    for buffer in stage.buffers:
        _write(buffer, buffers)
    for p in optimizer.parameters if optimizer else ():
        state = saved["optimizer"]["state"].get(p.name, {}) if p.updated.size else {}  # there is none of what is frozen
        optimizer.state[p] = {
            key: value if isinstance(value, Number) else _part(p, value) for key, value in state.items()
        }


def merge(ranks: Sequence[RankState]) -> dict:
    """The whole state from what all ranks held after the same step.

    {"step": …, "model": {name: Tensor}, "replicas": [the buffers of each other replica], "optimizer": {"state": …}},
    the last as `Optimizer.state_dict` of one worker has it.
    """
    replicas: dict[int, list] = {held.replica: [] for held in ranks}
    for held in ranks:
        replicas[held.replica] += [(name, *part) for name, part in held.buffers.items()]
    buffers = [join(replicas[replica]) for replica in sorted(replicas)]
    state: dict[str, dict] = {name: {} for held in ranks for name in held.state}
    for held in ranks:
        for name, (values, _) in held.state.items():
            state[name] |= values  # the numbers; and the keys in the order that the optimizer has them
    for (name, key), whole in join(_arrays(ranks)).items():
        state[name][key] = whole.reshape(-1)
    return {
        "step": ranks[0].step,
        "model": {name: Tensor(array) for name, array in whole_model(ranks).items()},
        "replicas": [{name: Tensor(array) for name, array in found.items()} for found in buffers[1:]],
        "optimizer": {"state": state},
    }


def whole_model(ranks: Sequence[RankState]) -> dict[str, np.ndarray]:
    """The whole parameters, and the buffers of the first replica, in the order of the chain."""

    def of_first(held: RankState) -> dict[str, tuple[np.ndarray, Cut]]:
        return held.parameters | (held.buffers if held.replica == 0 else {})

    return join((name, *part) for held in ranks for name, part in of_first(held).items())


def _arrays(ranks: Sequence[RankState]) -> Iterator[tuple[tuple[str, str], np.ndarray, Cut]]:
    for held in ranks:
        for name, (values, cut) in held.state.items():
            for key, value in values.items():
                if not isinstance(value, Number):
                    yield (name, key), value, cut if value.size == cut.size else Cut(value.shape)


def _write(tensor: Stored, saved: dict[str, Tensor]) -> None:
    """Into the array that is there: it may lie in a buffer of the stage."""
    part = tensor.cut.take(saved[tensor.name].numpy())
    tensor.kernels.assign(tensor.data, tensor.kernels.array(part, tensor.dtype))


def _part(p: Parameter, whole: np.ndarray):
    """Of a state as large as the whole parameter what belongs to the part that is updated here, on its device.

    One of another size is that of an optimizer which takes whole parameters.
    """
    if whole.size != math.prod(p.updated.whole):
        return p.kernels.array(whole.flatten(), whole.dtype)
    return p.kernels.array(p.updated.take(whole.reshape(p.updated.whole)).flatten(), whole.dtype)


def _on_host(value):
    return value if isinstance(value, Number) else for_array(value).to_numpy(value)
