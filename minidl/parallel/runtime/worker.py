"""The worker: runs the instruction list of its rank on its part of the model.

Lanes: compute instructions run one after the other on this process; those of the communication lane are brought on
between them, as far as they go without waiting, and waited for only when a buffer they write is needed. So a rank never
idles for a message it does not need yet; the bytes are still moved by this core, there is no other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minidl import random
from minidl.nn.module import Module
from minidl.parallel import blocks
from minidl.parallel import instructions as I
from minidl.parallel.group import Handle, Steps
from minidl.parallel.mesh import LAYER_AXES, Mesh
from minidl.parallel.runtime.stage import Stage
from minidl.trace import COMMUNICATION, COMPUTE


@dataclass(frozen=True)
class Totals:
    """Of a global batch: the sum of the losses and its weight; in evaluation, how many answers were right."""

    loss: float
    weight: float
    correct: float
    answers: float


class Worker:
    """Executes programs on one rank.

    loss: gives sum and weight. optimizer: over this rank's parameters, None if it has none. events: what happened,
    until somebody takes it; tuples that `Event._make` takes, as these are made in a third of the time.
    """

    def __init__(self, stage: Stage, mesh: Mesh, loss, optimizer, seed: int, clip_norm: float | None):
        self.stage, self.mesh, self.loss, self.optimizer = stage, mesh, loss, optimizer
        self.seed, self.clip_norm, self.status = seed, clip_norm, mesh.world.status
        self.buffers: dict[I.Buffer, object] = {}
        self.lane: deque[tuple[I.Instruction, Steps | None]] = deque()
        self.events: list[tuple] = []
        self._rank = mesh.rank
        self.step = 0
        self.totals: Totals | None = None
        self._name, self._segment = "", 0.0  # the compute instruction that runs, and since when without a break
        self._sums = mesh.world.empty((4,), "float64").data
        self._norm = mesh.world.empty((1,), "float64").data
        squares = (len(optimizer.parameters), optimizer.norms) if optimizer else (0, 0)
        self._squares = mesh.world.empty(squares, "float64").data
        for axes in LAYER_AXES:
            mesh.group(*axes).on_collective = self._inside_layer

    def run(self, program: tuple[I.Instruction, ...], dataset, micro_batches: list[np.ndarray], step: int) -> Totals:
        """Run one step on the samples `micro_batches` of `dataset`; returns the totals of the global batch."""
        self.dataset, self.samples, self.step = dataset, micro_batches, step
        self._labels: dict[int, np.ndarray] = {}  # that came with inputs, where the first stage is the last one too
        self.lane = deque((i, None) for i in program if i.lane == COMMUNICATION)
        for instruction in program:
            if instruction.lane != COMPUTE:
                continue
            for buffer in instruction.reads:
                while buffer not in self.buffers:
                    self._communicate() or self.mesh.world.pause()
            self._name = instruction.name
            self.status.tell(self._name)
            self._segment = time.perf_counter()
            COMPUTE_HANDLERS[type(instruction)](self, instruction)
            self._record(COMPUTE, self._name, self._segment, time.perf_counter())
            self._free(instruction)
            self._communicate()
        while self.lane:
            self._communicate() or self.mesh.world.pause()
        return self.totals

    # Lanes

    def _communicate(self) -> bool:
        """Bring the communication lane on as far as it goes without waiting; true if an instruction was finished."""
        finished_any = False
        while self.lane:
            instruction, steps = self.lane[0]
            if steps is None:
                if any(buffer not in self.buffers for buffer in instruction.reads):
                    break
                self.status.tell(instruction.name)
                steps = COMMUNICATION_HANDLERS[type(instruction)](self, instruction)
                self.lane[0] = (instruction, steps)
            try:
                next(steps)
                break
            except StopIteration as finished:
                self.lane.popleft()
                self._record(COMMUNICATION, instruction.name, finished.value, time.perf_counter())
                self._free(instruction)
                finished_any = True
        return finished_any

    def _record(self, lane: str, name: str, start: float, end: float) -> None:
        self.events.append((self._rank, lane, name, start, end, self.step))

    def _inside_layer(self, handle: Handle) -> None:
        """A collective inside a layer: it interrupts the compute lane, and is an event of the communication lane."""
        now = time.perf_counter()
        self._record(COMPUTE, self._name, self._segment, handle.began)
        self._record(COMMUNICATION, handle.name, handle.matched, now)
        self._segment = now

    def _free(self, instruction: I.Instruction) -> None:
        for buffer in instruction.frees:
            del self.buffers[buffer]

    # Compute

    def load_input(self, i: I.LoadInput) -> None:
        x, self._labels[i.micro_batch] = self.dataset[self.samples[i.micro_batch]]
        self.buffers[i.writes[0]] = self._cast(x)

    def load_target(self, i: I.LoadTarget) -> None:
        y = self._labels.pop(i.micro_batch, None)
        if y is None:
            _, y = self.dataset[self.samples[i.micro_batch]]
        self.buffers[i.writes[0]] = self._cast(y)

    def _cast(self, array: np.ndarray) -> np.ndarray:
        return array.astype(self.stage.dtype, copy=False) if array.dtype.kind == "f" else array

    def forward(self, i: I.Forward) -> None:
        x, saved = self.buffers[i.reads[0]], []
        wants_grad = self.stage.first > 0  # nobody wants the gradient of the data
        for block in self._in_scope(i.micro_batch):
            x, kept = blocks.forward(block, x, wants_grad)
            wants_grad = kept.wants_grad
            saved.append(kept)
        output, keep = i.writes
        self.buffers[output], self.buffers[keep] = x, saved

    def infer(self, i: I.Infer) -> None:
        x = self.buffers[i.reads[0]]
        for block in self.stage.blocks:
            x = blocks.infer(block, x)
        self.buffers[i.writes[0]] = x

    def _in_scope(self, micro_batch: int) -> Iterator[Module]:
        """The blocks, random numbers keyed to the place of each in the chain while it runs."""
        with random.scope(random.Scope(self.seed, self.step, self.samples[micro_batch])) as keys:
            for index, block in enumerate(self.stage.blocks, self.stage.first):
                keys.enter_block(index)
                yield block

    def compute_loss(self, i: I.Loss) -> None:
        output, target = (self.buffers[b] for b in i.reads)
        total, weight, gradient = blocks.loss_and_gradient(self.loss, output, target)
        gradient_buffer, loss_buffer = i.writes
        self.buffers[gradient_buffer] = gradient
        self.buffers[loss_buffer] = (float(total), float(weight), 0.0, 0.0)

    def score(self, i: I.Score) -> None:
        output, target = (self.buffers[b] for b in i.reads)
        self.buffers[i.writes[0]] = blocks.score(self.loss, output, target)

    def backward(self, i: I.Backward) -> None:
        saved, gradient = (self.buffers[b] for b in i.reads[:2])
        if i.after is None:
            for bucket in i.buckets:
                for p in self.stage.bucket_parameters[bucket]:
                    p.grad = None
        for bucket in reversed(i.buckets):
            first, end = self.stage.bucket_ranges[bucket]
            for block in range(end - 1, first - 1, -1):
                if gradient is not None:
                    gradient = saved[block].backward(gradient)
            for p in self.stage.bucket_parameters[bucket]:
                if p.grad is None:  # no op of this micro-batch used it
                    p.gradient_buffer[...] = 0
        for buffer in i.writes:
            if buffer[0] != "gradient":
                self.buffers[buffer] = self.stage.gradients[buffer[2]]
            else:
                self.buffers[buffer] = gradient
                if gradient is None and i.first == 0:  # a block cut it off, but the stage before waits for it
                    self.buffers[buffer] = np.zeros(saved[0].shape, saved[0].dtype)

    def _scale(self, i: I.MeasureParameters | I.OptimizerStep) -> float:
        """What the update multiplies the gradients by."""
        weight = self.buffers[("total",)].weight
        scale = 1.0 / weight if weight else 0.0
        if i.clip:
            norm = scale * self.buffers[("norm",)] ** 0.5
            scale *= min(1.0, self.clip_norm / (norm + 1e-6))  # as torch.nn.utils.clip_grad_norm_
        return scale

    def measure(self, i: I.MeasureParameters) -> None:
        if self.optimizer is not None:
            self._squares[...] = self.optimizer.measure(self._scale(i))
            if self.mesh.coordinate("tensor") > 0:  # the first counts what every tensor rank has whole
                self._squares[[p.shard is None for p in self.optimizer.parameters]] = 0
        self.buffers[i.writes[0]] = self._squares

    def update(self, i: I.OptimizerStep) -> None:
        self.totals = self.buffers[("total",)]
        if self.optimizer is not None:
            self.optimizer.step(scale=self._scale(i), squares=self.buffers[("norms",)] if i.norms else None)
        for buffer in i.writes:
            self.buffers[buffer] = self.stage.values[buffer[2]]

    def take_totals(self, i: I.EndEvaluation) -> None:
        self.totals = self.buffers[("total",)]

    # Communication: each yields while it waits, and returns the time at which its peers were there

    def send(self, i: I.SendActivation | I.SendGradient) -> Steps:
        sent = yield from _until_done(self.mesh.world.send(self.buffers[i.reads[0]], i.to, async_op=True))
        return sent.matched

    def receive(self, i: I.RecvActivation | I.RecvGradient) -> Steps:
        received = yield from _until_done(self.mesh.world.recv(src=i.source, async_op=True))
        self.buffers[i.writes[0]] = received.result.data
        return received.matched

    def reduce_gradients(self, i: I.ReduceGradients) -> Steps:
        flat = self.buffers[i.reads[0]]
        reduced = yield from _until_done(self.mesh.group(*i.axes).all_reduce(flat, async_op=True))
        self.buffers[i.writes[0]] = flat
        return reduced.matched

    def reduce_scatter_gradients(self, i: I.ReduceScatterGradients) -> Steps:
        flat, group = self.buffers[i.reads[0]], self.mesh.group(*i.axes)
        share = flat[self.stage.share[i.bucket]]
        reduced = yield from _until_done(group.reduce_scatter(flat, out=share, async_op=True))
        self.buffers[i.writes[0]] = share
        return reduced.matched

    def gather_parameters(self, i: I.GatherParameters) -> Steps:
        values, group = self.buffers[i.reads[0]], self.mesh.group(*i.axes)
        share = values[self.stage.share[i.bucket]]
        gathered = yield from _until_done(group.all_gather(share, out=values, async_op=True))
        return gathered.matched

    def reduce_loss(self, i: I.ReduceLoss) -> Steps:
        self._sums[:] = np.sum([self.buffers[b] for b in i.reads] or [(0.0,) * 4], axis=0)
        reduced = yield from _until_done(self.mesh.group(*i.axes).all_reduce(self._sums, async_op=True))
        self.buffers[i.writes[0]] = Totals(*map(float, self._sums))
        return reduced.matched

    def reduce_norm(self, i: I.ReduceNorm) -> Steps:
        first = self.mesh.coordinate("tensor") == 0  # counts what every tensor rank has whole
        held = [p for p in self.stage.parameters if first or p.shard is not None]
        own = [p.gradient_buffer.reshape(-1)[p.updated_here or slice(None)] for p in held]
        self._norm[0] = sum(float(np.vdot(g, g)) for g in own)
        reduced = yield from _until_done(self.mesh.group(*i.axes).all_reduce(self._norm, async_op=True))
        self.buffers[i.writes[0]] = float(self._norm[0])
        return reduced.matched

    def reduce_parameter_norms(self, i: I.ReduceParameterNorms) -> Steps:
        squares = self.buffers[i.reads[0]]
        reduced = yield from _until_done(self.mesh.group(*i.axes).all_reduce(squares, async_op=True))
        self.buffers[i.writes[0]] = squares
        return reduced.matched


def _until_done(handle: Handle) -> Steps:
    while not handle.poll():
        yield
    return handle


COMPUTE_HANDLERS: dict[type, Callable] = {
    I.LoadInput: Worker.load_input,
    I.LoadTarget: Worker.load_target,
    I.Forward: Worker.forward,
    I.Infer: Worker.infer,
    I.Loss: Worker.compute_loss,
    I.Score: Worker.score,
    I.Backward: Worker.backward,
    I.MeasureParameters: Worker.measure,
    I.OptimizerStep: Worker.update,
    I.EndEvaluation: Worker.take_totals,
}

COMMUNICATION_HANDLERS: dict[type, Callable] = {
    I.SendActivation: Worker.send,
    I.RecvActivation: Worker.receive,
    I.SendGradient: Worker.send,
    I.RecvGradient: Worker.receive,
    I.ReduceGradients: Worker.reduce_gradients,
    I.ReduceScatterGradients: Worker.reduce_scatter_gradients,
    I.GatherParameters: Worker.gather_parameters,
    I.ReduceLoss: Worker.reduce_loss,
    I.ReduceNorm: Worker.reduce_norm,
    I.ReduceParameterNorms: Worker.reduce_parameter_norms,
}
