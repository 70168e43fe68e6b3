"""One matrix product split over workers in several ways: what a rank sends, and how long forward and backward take.

The product is a chain that is trained and simulated like any other: a block that has this rank's part of x, and a
linear layer without bias whose weight is split, one of `minidl.parallel.layers` or `minidl.parallel.products`. Only
their Forward and Backward count, not loss and update.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from minidl import nn, ops, optim
from minidl.data import ArrayDataset
from minidl.nn import init
from minidl.nn.cut import Cut
from minidl.op import Op
from minidl.parallel import Mesh, Plan, forkserver, train
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear, cut
from minidl.parallel.products import RowsLinear, SummaLinear, grid_groups, squarest
from minidl.tensor import Tensor
from minidl.trace import Trace
from minidl.units import counted
from simulator.hardware import Cluster
from simulator.predict import simulate
from simulator.traffic import sent_bytes

SPLITS = ("rows", "columns", "inner", "summa")
WHOLE = "whole"  # what one worker does
WARM_UP = 2  # steps of a run that are not timed
RUN_SECONDS, LEAST_STEPS, MOST_STEPS = 1.0, 5, 30  # that are timed: as many as fit, by the prediction


@dataclass(frozen=True)
class Row:
    """A product of two matrices of `size` × `size` over some workers. Names are those of the JSON file.

    sent_bytes: that a rank sends in the collectives of forward and backward, see `sent_bytes`; it receives as many.
    seconds: of forward and backward of a step, the median of steps. measured_seconds: None where it was not measured.
    """

    size: int
    workers: int
    split: str
    sent_bytes: float
    simulated_seconds: float
    measured_seconds: float | None


class _Wanted(Op):
    """x as it is. A trained block made it, so its gradient is wanted; there that is dropped."""

    def forward(self, x, parameter):
        return x

    def backward(self, grad):
        return None, self.kernels.full((1,), 0.0, grad.dtype)


class Operand(nn.Module):
    """This rank's part of x, whatever comes in; at no cost."""

    def __init__(self, part: Cut):
        self.x = nn.Buffer(part, init=init.normal())
        self.unused = nn.Parameter((1,), init=init.zeros())

    def forward(self, _: Tensor) -> Tensor:
        return _Wanted()(self.x, self.unused)


class Squares(nn.Loss):
    """The sum of the squares of this rank's part of y: any loss does whose gradient is an array like others."""

    def over_classes(self, split) -> nn.Loss:
        return self

    def sum_and_weight(self, output: Tensor, target: Tensor) -> tuple[Tensor, float]:
        return ops.multiply(output, output).sum(), float(target.numel())


def product(size: int, split: str) -> Callable[[Mesh], nn.Module]:
    """The builder of a chain of x (size, size), split as its layer takes it, and the layer."""

    def build(mesh: Mesh) -> nn.Module:
        shape = (size, size)
        if split == "summa":
            rows, columns = squarest(mesh.size("tensor"))
            row, column = grid_groups(mesh, rows, columns)
            part = cut(shape, 0, column)
            part = part.split(1, row.rank, row.size) if row else part
            return nn.Sequential(Operand(part), SummaLinear(*shape, mesh, rows, columns, bias=False))
        group = mesh.group("tensor")
        if split == "columns":
            return nn.Sequential(Operand(Cut(shape)), ColumnParallelLinear(*shape, group, bias=False))
        if split == "inner":
            return nn.Sequential(Operand(cut(shape, 1, group)), RowParallelLinear(*shape, group, bias=False))
        return nn.Sequential(Operand(cut(shape, 0, group)), RowsLinear(*shape, group, bias=False))

    return build


def products(
    sizes: Sequence[int],
    workers: Sequence[int],
    cluster: Cluster,
    measured_workers: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Row]:
    """Each product, simulated on the cluster and, over at most `measured_workers`, measured here.

    progress: told what is run, how many are done, and of how many. ValueError for a size that does not divide.
    """
    check_sizes(sizes, workers)
    chosen = [
        (size, count, split) for size in sizes for count in workers for split in (SPLITS if count > 1 else (WHOLE,))
    ]
    rows = []
    with forkserver():
        for done, (size, count, split) in enumerate(chosen):
            progress(f"{split}, {size} × {size}, {counted(count, 'worker')}", done, len(chosen))
            rows.append(_row(size, count, split, cluster, count <= measured_workers))
    return rows


def check_sizes(sizes: Iterable[int], workers: Sequence[int]) -> None:
    """ValueError unless every size can be split over any of these numbers of workers."""
    for size in sizes:
        for count in workers:
            if size % count:
                raise ValueError(f"matrices of {size} × {size} are not divisible over {count} workers")


def _row(size: int, workers: int, split: str, cluster: Cluster, measured: bool) -> Row:
    settings = {"loss": Squares(), "optimizer": lambda parameters: optim.SGD(parameters, lr=0.0)}
    build, plan = product(size, split), Plan(tensor=workers, precision=cluster.usual_precision)
    samples = ArrayDataset(np.zeros((size, 1), np.float32), np.zeros(size, np.int64))  # which Operand does not look at
    prediction = simulate(build, plan, cluster, size, example=samples[np.arange(1)], **settings)
    seconds = None
    if measured:
        fitting = int(RUN_SECONDS / prediction.step_seconds)
        steps = WARM_UP + min(max(fitting, LEAST_STEPS), MOST_STEPS)
        run = train(build, samples, plan, batch_size=size, steps=steps, progress=False, **settings)
        seconds = product_seconds(run.trace, WARM_UP)
    blocks = prediction.program.costs.profile.blocks
    calls = [c for block in blocks for c in (*block.forward, *block.backward) if isinstance(c, CollectiveCall)]
    sent = sum(map(sent_bytes, calls)) * plan.scale
    return Row(size, workers, split, sent, product_seconds(prediction.trace, 1), seconds)


def product_seconds(trace: Trace, first_step: int) -> float:
    """From begin to end of Forward, and of Backward, with the collectives inside: mean of ranks, median of steps."""
    steps = []
    for step in trace.steps()[first_step:]:
        lengths = []
        for rank in step.ranks:
            for name in ("F0", "B0"):
                events = [e for e in step.events if e.rank == rank and e.name == name]
                lengths.append(max(e.end for e in events) - min(e.start for e in events))
        steps.append(sum(lengths) / len(step.ranks))
    return statistics.median(steps)
