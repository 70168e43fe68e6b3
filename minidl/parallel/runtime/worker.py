"""The worker: runs the instruction lists of its rank on its part of the model.

Lanes: compute instructions run one after the other on this process; those of the other lanes are brought on between
them, and while it waits, as far as they go without waiting themselves. So a rank never idles for a message it does not
need yet; the bytes are still moved by this core, there is no other. What may run when, the machine says (machine.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from minidl import random
from minidl.kernels import for_array
from minidl.nn.module import Module
from minidl.parallel import blocks
from minidl.parallel import instructions as I
from minidl.parallel.handle import Handle, Steps
from minidl.parallel.instructions import buffers as B
from minidl.parallel.machine import Compiled, Lane
from minidl.parallel.mesh import Mesh
from minidl.parallel.runtime.communication import COMMUNICATION_HANDLERS
from minidl.parallel.runtime.device import Gpu, Host, Told
from minidl.parallel.runtime.execution import Execution, Step
from minidl.parallel.runtime.high_water import HighWater
from minidl.parallel.runtime.stage import Bucket, Stage
from minidl.parallel.sequence import part
from minidl.parallel.totals import Totals
from minidl.trace import COLLECTIVES, COMPUTE, COPY


class Worker:
    """Executes programs on one rank.

    mesh: with the groups in which instructions meet. loss: gives sum and weight. optimizer: over this rank's
    parameters, None if it has none. positions: that it has of each sequence, None for all. events: what happened, until
    somebody takes it; tuples that `Event._make` takes, as these are made in a third of the time, with the instruction
    in place of its details; of a collective inside a layer the instruction and the bytes. Times are moments of the
    device. memory: how much this rank holds, while it is asked to look.
    """

    def __init__(
        self, stage: Stage, mesh: Mesh, loss, optimizer, seed: int, clip_norm: float | None, device: Host | Gpu,
        positions: np.ndarray | None = None,
    ):  # fmt: skip
        self.stage, self.mesh, self.loss, self.optimizer = stage, mesh, loss, optimizer
        self.device, self._now = device, device.now
        self.seed, self.clip_norm, self._tell = seed, clip_norm, mesh.world.tell
        self.positions = positions
        self.buffers: dict[B.BufferName, object] = {}
        self.events: list[tuple] = []
        self.memory: HighWater | None = None
        self.totals: Totals | None = None
        self._rank = mesh.rank
        self.execution = Execution({})
        mesh.world.meanwhile(self._communicate)
        self._instruction: I.Instruction | None = None  # the compute instruction that runs
        self._segment = 0.0  # since when it has run without a break
        self.sums = mesh.world.empty((len(Totals._fields),), "float64").data
        self.norm = mesh.world.empty((1,), "float64").data
        squares = (len(optimizer.parameters), optimizer.norms) if optimizer else (0, 0)
        self.norms = mesh.world.empty(squares, "float64").data

    def run(self, execution: Execution, step: Step) -> Totals:
        """Run one more step of a list, until its compute lane is through; returns the totals of the global batch.

        What is still under way on other lanes, as a gather is, goes on beside the next step, or until `drain`.
        """
        self.execution, self.step = execution, step
        execution.lanes.allow_step()
        self._communicate()
        lane = execution.lanes.get(COMPUTE)
        while lane and lane.done < lane.limit:
            while (instruction := lane.ready()) is None:
                self.mesh.world.pause()
            lane.begin()
            self._instruction = instruction
            self._tell(instruction.name)
            self._segment = self._now()
            COMPUTE_HANDLERS.get(type(instruction), _run_custom)(self, instruction)
            self._record(COMPUTE, instruction.name, self._segment, self._now(), step.number, instruction)
            self._finish(lane, instruction)
            self._communicate()
        return self.totals

    def run_once(self, compiled: Compiled, step: Step) -> None:
        """Run a list, a prologue or an epilogue, once and to its end."""
        execution = Execution(compiled, step.number)
        self.run(execution, step)
        self.drain(execution)

    def drain(self, execution: Execution) -> None:
        """Wait until all is done that was begun."""
        self.execution = execution
        while execution.lanes.unfinished():
            self.mesh.world.pause()

    # Lanes

    def _communicate(self) -> None:
        """Bring the other lanes on as far as they go without waiting."""
        begun = self.execution.begun
        for lane, under_way in begun.items():
            while True:
                if under_way is None:
                    instruction = lane.ready()
                    if instruction is None:
                        break
                    lane.begin()
                    self._tell(instruction.name)
                    handler = COMMUNICATION_HANDLERS.get(type(instruction), _run_custom)
                    under_way = begun[lane] = instruction, handler(self, instruction)
                instruction, steps = under_way
                try:
                    next(steps)
                    break
                except StopIteration as finished:
                    under_way = begun[lane] = None
                    number = self.execution.first_step + lane.step
                    now = time.perf_counter()
                    self._record(lane.name, instruction.name, finished.value, now, number, instruction)
                    self._finish(lane, instruction)

    def _finish(self, lane: Lane, instruction: I.Instruction) -> None:
        if self.memory is not None:
            self.memory.look(instruction, self.buffers)
        for buffer in instruction.frees:
            self.buffers.pop(buffer, None)  # the gradients of parameters stay where they are
        lane.finish()

    def _record(self, lane: str, name: str, start: float, end: float, step: int, what) -> None:
        self.events.append((self._rank, lane, name, start, end, step, what))

    def record_model(self, step: int) -> None:
        """Tell, in the step that comes first, how the model came to the device."""
        for name, start, end in self.device.arrivals(self.stage.placed):
            self._record(COPY, name, start, end, step, None)

    def inside_layer(self, handle: Handle) -> None:
        """A collective inside a layer has ended: from when its caller stopped it has interrupted the compute lane."""
        now, i, stopped = time.perf_counter(), self._instruction, max(handle.stopped, self._segment)
        self._record(COMPUTE, i.name, self._segment, stopped, self.step.number, i)
        self._record(COLLECTIVES, handle.name, max(handle.matched, stopped), now, self.step.number, (i, handle.nbytes))
        self._segment = now

    def _copied(self, i: I.Instruction) -> Told:
        """What is to be told of copies between host and device that are made for `i`."""
        step = self.step.number
        return lambda what, start, end, nbytes: self._record(COPY, f"{i.name} {what}", start, end, step, (i, nbytes))

    # Compute

    def load_input(self, i: I.LoadInput) -> None:
        x, y = self.step.dataset[self.step.samples[i.micro_batch]]
        if self.stage.holds_end:
            self.step.labels[i.micro_batch] = y
        self.buffers[i.writes[0]] = self._load(i, x)

    def load_target(self, i: I.LoadTarget) -> None:
        y = self.step.labels.pop(i.micro_batch, None)
        if y is None:
            _, y = self.step.dataset[self.step.samples[i.micro_batch]]
        self.buffers[i.writes[0]] = self._load(i, y)

    def _load(self, i: I.Instruction, array: np.ndarray):
        """What this rank has of the samples: all, or its part of their sequences."""
        array = part(array, 1, self.mesh.coordinate("context"), self.mesh.size("context"))
        dtype = self.stage.dtype if array.dtype.kind == "f" else array.dtype
        return self.device.load(array, dtype, self._copied(i))

    def forward(self, i: I.Forward) -> None:
        x, first_trained = self.buffers[i.reads[0]], math.inf if i.recomputed else self.stage.layout.first_trained
        with self._keys(i) as keys:
            for b in i.buckets:
                x, saved = blocks.forward_through(self._keyed(self.stage.chunks[i.chunk][b], keys), x, first_trained)
                for named, made in ((B.activation, x), (B.saved, saved)):
                    if (buffer := named(i.chunk, i.micro_batch, b)) in i.writes:
                        self.buffers[buffer] = made

    def recompute(self, i: I.Recompute) -> None:
        with self._keys(i) as keys:
            chain, x = self._keyed(self.stage.chunks[i.chunk][i.first], keys), self.buffers[i.reads[0]]
            _, saved = blocks.forward_through(chain, x, self.stage.layout.first_trained, blocks.recompute)
        self.buffers[i.writes[0]] = saved

    def _keys(self, i: I.Forward | I.Recompute) -> AbstractContextManager[random.Scope]:
        """In the `with` block random numbers are those of this step and micro-batch."""
        samples = self.step.samples[i.micro_batch]
        return random.scope(random.Scope(self.seed, self.step.number, samples, positions=self.positions))

    def _keyed(self, bucket: Bucket, keys) -> Iterator[tuple[int, Module]]:
        """The blocks and their places in the chain, to which random numbers are keyed while a block runs."""
        for place, block in bucket.blocks.items():
            keys.enter_block(place)
            yield place, block

    def infer(self, i: I.Infer) -> None:
        x = self.buffers[i.reads[0]]
        for bucket in self.stage.chunks[i.chunk][i.first : i.last + 1]:
            for block in bucket.blocks.values():
                x = blocks.infer(block, x)
        self.buffers[i.writes[0]] = x

    def compute_loss(self, i: I.Loss) -> None:
        output, target = (self.buffers[b] for b in i.reads)
        total, weight, gradient = blocks.loss_and_gradient(self.loss, output, target)
        loss, *given = i.writes
        self.buffers[loss] = self.device.fetch((total, weight, 0.0, 0.0), self._copied(i))
        for buffer in given:
            self.buffers[buffer] = gradient

    def score(self, i: I.Score) -> None:
        output, target = (self.buffers[b] for b in i.reads)
        self.buffers[i.writes[0]] = self.device.fetch(blocks.score(self.loss, output, target), self._copied(i))

    def backward(self, i: I.Backward) -> None:
        gradient = self.buffers.pop(i.reads[0])  # used up, and with it what each block has saved
        with self._gradients(i):
            for b in reversed(i.buckets):
                saved = self.buffers[B.saved(i.chunk, i.micro_batch, b)]
                gradient = blocks.backward_through(saved, gradient)
        if i.gives_gradient:
            self.buffers[i.writes[0]] = gradient

    def backward_input(self, i: I.BackwardInput) -> None:
        gradient = self.buffers.pop(i.reads[0])
        for b in reversed(i.buckets):
            saved, later = (named(i.chunk, i.micro_batch, b) for named in (B.saved, B.later))
            gradient, self.buffers[later] = blocks.backward_input_through(self.buffers[saved], gradient)
        if i.gives_gradient:
            self.buffers[i.writes[0]] = gradient

    def backward_weights(self, i: I.BackwardWeights) -> None:
        with self._gradients(i):
            for b in reversed(i.buckets):
                for block in self.buffers[B.later(i.chunk, i.micro_batch, b)]:
                    block.backward_weights()

    @contextmanager
    def _gradients(self, i: I.Backward | I.BackwardWeights) -> Iterator[None]:
        """In the `with` block the parameters of `i` get their gradients, the first of the step or added to those."""
        chunk = self.stage.chunks[i.chunk][i.first : i.last + 1]
        for bucket in (*chunk[: 0 if i.accumulates else None], *(self.stage.apart[n] for n in i.new_apart)):
            for p in bucket.parameters:
                p.grad = None
        yield
        for bucket in (*chunk, *(self.stage.apart[n] for n in i.apart)):
            for p in bucket.parameters:
                if p.grad is None and p.requires_grad:  # no op of this micro-batch used it
                    p.kernels.fill(p.gradient_buffer, 0)

    def add_share(self, i: I.AddShare) -> None:
        bucket = self.stage.bucket(i.chunk, i.bucket)
        kernels, found = for_array(bucket.gradients), bucket.gradients[bucket.own]
        (kernels.accumulate if i.accumulates else kernels.assign)(bucket.share_gradients, found)

    def _scale(self, i: I.MeasureParameters | I.OptimizerStep) -> float:
        """What the update multiplies the gradients by."""
        weight = self.buffers[B.TOTAL].weight
        scale = 1.0 / weight if weight else 0.0
        if i.clip:
            norm = scale * self.buffers[B.NORM] ** 0.5
            scale *= min(1.0, self.clip_norm / (norm + 1e-6))  # as torch.nn.utils.clip_grad_norm_
        return scale

    def measure(self, i: I.MeasureParameters) -> None:
        if self.optimizer is not None:
            self.norms[...] = self.optimizer.measure(self._scale(i))
            axes = self.stage.plan.parted  # along which they are summed: what several ranks have, one of them counts
            self.norms[[not self.stage.is_first(p, axes) for p in self.optimizer.parameters]] = 0

    def update(self, i: I.OptimizerStep) -> None:
        self.totals = self.buffers[B.TOTAL]
        if self.optimizer is not None:
            self.optimizer.step(scale=self._scale(i), squares=self.norms if i.norms else None)

    def take_totals(self, i: I.EndEvaluation) -> None:
        self.totals = self.buffers[B.TOTAL]


def _run_custom(worker: Worker, i: I.CustomInstruction) -> Steps | None:
    return i.run(worker)


COMPUTE_HANDLERS: dict[type, Callable] = {
    I.LoadInput: Worker.load_input,
    I.LoadTarget: Worker.load_target,
    I.Forward: Worker.forward,
    I.Recompute: Worker.recompute,
    I.Infer: Worker.infer,
    I.Loss: Worker.compute_loss,
    I.Score: Worker.score,
    I.Backward: Worker.backward,
    I.BackwardInput: Worker.backward_input,
    I.BackwardWeights: Worker.backward_weights,
    I.AddShare: Worker.add_share,
    I.MeasureParameters: Worker.measure,
    I.OptimizerStep: Worker.update,
    I.EndEvaluation: Worker.take_totals,
}
