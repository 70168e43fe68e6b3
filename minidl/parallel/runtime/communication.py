"""What a worker does for the instructions that communicate.

Each is a generator that yields while it must wait for others, and returns the time at which its peers were there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from minidl.kernels import for_array
from minidl.parallel import blocks
from minidl.parallel import instructions as I
from minidl.parallel.handle import Handle, Steps
from minidl.parallel.totals import Totals

if TYPE_CHECKING:
    from minidl.parallel.runtime.worker import Worker


def send(worker: Worker, i: I.SendActivation | I.SendGradient) -> Steps:
    for array in compress(blocks.several(worker.buffers[i.reads[0]]), i.arrays):
        sent = yield from _until_done(worker.mesh.world.send(array, i.to, async_op=True))
    return sent.matched


def receive(worker: Worker, i: I.RecvActivation | I.RecvGradient) -> Steps:
    found: list = [None] * len(i.arrays)
    for which in compress(range(len(found)), i.arrays):
        received = yield from _until_done(worker.mesh.world.recv(src=i.source, async_op=True))
        found[which] = received.result.data
    worker.buffers[i.writes[0]] = tuple(found) if i.tuple_of else found[0]
    return received.matched


def reduce_gradients(worker: Worker, i: I.ReduceGradients) -> Steps:
    bucket, group = worker.stage.bucket(i.chunk, i.bucket), worker.mesh.group(*i.axes)
    reduced = yield from _until_done(group.all_reduce(bucket.gradients, async_op=True))
    return reduced.matched


def reduce_scatter_gradients(worker: Worker, i: I.ReduceScatterGradients) -> Steps:
    bucket, group = worker.stage.bucket(i.chunk, i.bucket), worker.mesh.group(*i.axes)
    flat = bucket.gradients
    reduced = yield from _until_done(group.reduce_scatter(flat, out=flat[bucket.own], async_op=True))
    return reduced.matched


def sum_parts(worker: Worker, i: I.SumParts) -> Steps:
    group = worker.mesh.group(*i.axes)
    reduced = yield from _until_done(group.all_reduce(worker.stage.apart[i.apart].gradients, async_op=True))
    return reduced.matched


def gather_parameters(worker: Worker, i: I.GatherParameters) -> Steps:
    bucket, group = worker.stage.bucket(i.chunk, i.bucket), worker.mesh.group(*i.axes)
    gathered = yield from _until_done(group.all_gather(bucket.share_values, out=bucket.values, async_op=True))
    return gathered.matched


def broadcast_statistics(worker: Worker, i: I.BroadcastStatistics) -> Steps:
    group, matched = worker.mesh.group(*i.axes), time.perf_counter()
    for statistics in worker.stage.statistics(i.chunk):
        matched = (yield from _until_done(group.broadcast(statistics.data, async_op=True))).matched
    return matched


def reduce_loss(worker: Worker, i: I.ReduceLoss) -> Steps:
    fetched = [worker.buffers[b] for b in i.reads]
    while not all(numbers.done() for numbers in fetched):
        yield
    worker.sums[:] = np.sum([f.numbers() for f in fetched] or [(0.0,) * len(worker.sums)], axis=0)
    reduced = yield from _until_done(worker.mesh.group(*i.axes).all_reduce(worker.sums, async_op=True))
    worker.buffers[i.writes[0]] = Totals(*map(float, worker.sums))
    return reduced.matched


def reduce_norm(worker: Worker, i: I.ReduceNorm) -> Steps:
    stage, axes = worker.stage, worker.stage.plan.parted  # what several ranks have, one of them counts
    parameters = (p for chunk, b in i.buckets for p in stage.bucket(chunk, b).parameters)
    held = [p for p in parameters if p.requires_grad and stage.is_first(p, axes)]
    own = [p.updated_gradient for p in held]
    worker.norm[0] = sum(for_array(g).squared_norm(g) for g in own)
    reduced = yield from _until_done(worker.mesh.group(*i.axes).all_reduce(worker.norm, async_op=True))
    worker.buffers[i.writes[0]] = float(worker.norm[0])
    return reduced.matched


def reduce_parameter_norms(worker: Worker, i: I.ReduceParameterNorms) -> Steps:
    reduced = yield from _until_done(worker.mesh.group(*i.axes).all_reduce(worker.norms, async_op=True))
    return reduced.matched


def _until_done(handle: Handle) -> Steps:
    while not handle.poll():
        yield
    return handle


COMMUNICATION_HANDLERS: dict[type, Callable] = {
    I.SendActivation: send,
    I.RecvActivation: receive,
    I.SendGradient: send,
    I.RecvGradient: receive,
    I.ReduceGradients: reduce_gradients,
    I.ReduceScatterGradients: reduce_scatter_gradients,
    I.SumParts: sum_parts,
    I.GatherParameters: gather_parameters,
    I.BroadcastStatistics: broadcast_statistics,
    I.ReduceLoss: reduce_loss,
    I.ReduceNorm: reduce_norm,
    I.ReduceParameterNorms: reduce_parameter_norms,
}
