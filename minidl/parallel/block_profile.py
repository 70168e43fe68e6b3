"""What a block of a chain costs and holds: one run on the meta device for each distinct block, shape and dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import count

from minidl.kernels import meta, predicting
from minidl.kernels.meta import KernelCall, MetaArray
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.parallel import blocks
from minidl.parallel.blocks import SavedBlock, attention_recomputed, each, recomputes_attention, several
from minidl.parallel.handle import CollectiveCall
from minidl.parallel.layout import USUAL, Reduction
from minidl.parallel.parameter_profile import ParameterProfile, reduction_of
from minidl.storage import on_meta, storages
from minidl.tensor import Tensor

Call = KernelCall | CollectiveCall
Arrays = MetaArray | tuple[MetaArray, ...]
Kept = tuple[tuple[str | tuple[str, int], int], ...]  # storages: what they are called, and their bytes


@dataclass(frozen=True)
class Halves:
    """Of a backward in two halves the calls, and `later`: the storages kept from the first to the second.

    inputs: the first half. weights: the second where its gradients are the first of the step; accumulate: where they
    are added to earlier ones.
    """

    inputs: tuple[Call, ...] = ()
    weights: tuple[Call, ...] = ()
    accumulate: tuple[Call, ...] = ()
    later: Kept = ()


@dataclass(frozen=True, kw_only=True)
class BlockProfile:
    """The calls of one block for one micro-batch, in order, and what it holds.

    backward: when its gradients are the first of the step; accumulate: when they are added to earlier ones; empty where
    no gradient goes back to the block. halves: of both, which few schedules ask for; find_halves: runs the block for
    them. recompute: its forward once more, for what was not kept. infer: its forward in evaluation. gives_gradient: its
    backward gives the gradient of its input. saved: the storages kept from forward to backward, beside parameters and
    statistics. Of them, and of those kept between halves, "input" and "output" are those of the block's input and
    output, which a neighbour may keep too, of tuples ("input", 0) and so on; the others are numbered; what both keep
    has one name. output: lies in memory as the block's does. passed: for each array of it, which one of the input has
    the same storage, None for none; that then goes by "input". statistics_bytes: of its running statistics. optimizer:
    its name, empty where there is nothing to update. flops: of forward and backward, where nothing is computed again.
    """

    forward: tuple[Call, ...]
    backward: tuple[Call, ...] = ()
    accumulate: tuple[Call, ...] = ()
    find_halves: Callable[[], Halves] = field(default=Halves, repr=False, compare=False)
    recompute: tuple[Call, ...] = ()
    infer: tuple[Call, ...]
    gives_gradient: bool = False
    saved: Kept = ()
    output: Arrays
    passed: tuple[int | None, ...]
    parameters: tuple[ParameterProfile, ...]
    statistics_bytes: int
    optimizer: str
    flops: int

    def cost(self, flops_per_byte: float) -> float:
        """Forward and backward in FLOPs, a byte moved counting as so many of them: for comparing blocks."""
        return float(sum(flops + flops_per_byte * nbytes for flops, nbytes in self._work))

    @cached_property
    def _work(self) -> list[tuple[int, int]]:
        """FLOPs of each kernel of forward and backward, and the bytes that it moves."""
        calls = (c for c in (*self.forward, *self.backward) if isinstance(c, KernelCall))
        return [(c.flops, c.bytes_read + c.bytes_written) for c in calls]

    @cached_property
    def collectives(self) -> tuple[CollectiveCall, ...]:
        """Those inside its layers, in forward, backward and evaluation."""
        calls = (*self.forward, *self.backward, *self.infer)
        return tuple(call for call in calls if isinstance(call, CollectiveCall))

    @cached_property
    def last_gather(self) -> CollectiveCall | None:
        """The last all-gather of its forward."""
        calls = (call for call in reversed(self.forward) if isinstance(call, CollectiveCall))
        return next((call for call in calls if call.name == "all_gather"), None)

    @property
    def halves(self) -> Halves:
        return self.find_halves()

    @property
    def saved_bytes(self) -> int:
        return sum(nbytes for _, nbytes in self.saved)

    @cached_property
    def parameter_bytes(self) -> int:
        return sum(p.nbytes for p in self.parameters)

    @cached_property
    def reductions(self) -> dict[int, Reduction]:
        """By their places, how those trained parameters are reduced that are not reduced as usual."""
        return {n: p.reduction for n, p in enumerate(self.parameters) if p.trained and p.reduction != USUAL}

    @property
    def parameter_count(self) -> int:
        return sum(p.elements for p in self.parameters)

    @property
    def update(self) -> tuple[Call, ...]:
        """The calls of the optimizer, all parameters in turn."""
        return tuple(call for p in self.parameters for call in (*p.measure, *p.update))


def profile_block(block: Module, x: Arrays, wants_grad: bool, trained: bool, device: str | None = None) -> BlockProfile:
    """Run `block`, whose parameters are on meta, on `x`; what an optimizer makes of these is left open.

    wants_grad: whether a block before waits for its gradient. trained: whether a gradient comes back to it. device:
    that which is `predicting`, if any.
    """
    parameters = list(block.parameters())
    with _in_buffers(parameters):
        with meta.record() as forward:
            y, saved = blocks.forward(block, x, wants_grad, trained)
        if saved is None:
            back = _run_again(block, x)
        else:
            back = _backward(block, x, wants_grad, y, saved)
            again = partial(_predicted, device, recomputes_attention(block))
            back["find_halves"] = cache(lambda: again(_halves, block, x, wants_grad))
        needed = _model_flops((*forward, *back.get("backward", ())))
        held = tuple(
            ParameterProfile(p.numel(), p.data.nbytes, p.requires_grad, p.grad is not None, reduction=reduction_of(p))
            for p in parameters
        )
        if saved is not None and recomputes_attention(block):
            needed = _flops_at_least(block, x, wants_grad)
        with meta.record() as infer, _in_evaluation(block):
            blocks.infer(block, x)
    return BlockProfile(
        forward=tuple(forward), infer=tuple(infer), output=each(on_meta, y), passed=_passed(x, y),
        parameters=held, statistics_bytes=sum(buffer.data.nbytes for buffer in block.buffers()),
        optimizer="", flops=needed, **back,
    )  # fmt: skip


@contextmanager
def _in_buffers(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Gradients lie where the worker's do, and are gone afterwards."""
    for parameter in parameters:
        parameter.grad, parameter.gradient_buffer = None, MetaArray(parameter.shape, parameter.dtype)
        if parameter.node:
            parameter.node.lent = False  # as it is where a backward was broken off
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.grad = parameter.gradient_buffer = None


@contextmanager
def _in_evaluation(block: Module) -> Iterator[None]:
    training = [module for module in block.modules() if module.training]
    block.train(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _passed(x: Arrays, y: Arrays) -> tuple[int | None, ...]:
    given = [array.storage for array in several(x)]
    return tuple(given.index(array.storage) if array.storage in given else None for array in several(y))


def _gradient(y: Arrays) -> Arrays:
    """Of an output."""
    return each(lambda array: MetaArray(array.shape, array.dtype) if array.dtype.kind == "f" else None, y)


def _backward(block: Module, x: Arrays, wants_grad: bool, y: Arrays, saved: SavedBlock) -> dict[str, object]:
    """The fields of BlockProfile that tell of its backward: of a step's first one, and of others."""
    gradient, kept = _gradient(y), list(saved.arrays())
    names = _Names(x, y, (*block.parameters(), *block.buffers()))
    with meta.record() as backward:
        input_gradient = saved.backward(gradient)
    with meta.record() as recompute:
        _, saved = blocks.recompute(block, x, wants_grad)
    with meta.record() as accumulate:
        saved.backward(gradient)
    return dict(
        backward=tuple(backward), accumulate=tuple(accumulate), recompute=tuple(recompute),
        gives_gradient=input_gradient is not None, saved=names(kept),
    )  # fmt: skip


def _predicted(device: str | None, recompute: bool, run: Callable[..., Halves], block: Module, *given) -> Halves:
    """What `run(block, *given)` gives on the device that is predicted, where attention is computed again or not."""
    with predicting(device) if device else nullcontext(), attention_recomputed(block, recompute):
        return run(block, *given)


def _halves(block: Module, x: Arrays, wants_grad: bool) -> Halves:
    """Run the block for the halves of its backward: of a step's first one, and of another."""
    parameters = list(block.parameters())
    with _in_buffers(parameters):
        y, saved = blocks.forward(block, x, wants_grad)
        names = _Names(x, y, (*parameters, *block.buffers()))
        kept = list(saved.arrays())  # as long as they are, a storage is known by its id
        with meta.record() as inputs:
            _, later = saved.backward_input(_gradient(y))
        left = list(later.arrays())
        with meta.record() as weights:
            later.backward_weights()
        _, saved = blocks.recompute(block, x, wants_grad)
        _, later = saved.backward_input(_gradient(y))
        with meta.record() as accumulate:
            later.backward_weights()
        names(kept)  # so that what both keep has the name that it has there
        return Halves(tuple(inputs), tuple(weights), tuple(accumulate), names(left))


def _run_again(block: Module, x: Arrays) -> dict[str, object]:
    """The field of BlockProfile that tells of a block without a backward: what those after it are computed from."""
    with meta.record() as recompute:
        blocks.recompute(block, x, wants_grad=False, trained=False)
    return dict(recompute=tuple(recompute))


def _flops_at_least(block: Module, x: Arrays, wants_grad: bool) -> int:
    """Of forward and backward, where attention keeps its weights."""
    for parameter in block.parameters():
        parameter.grad = None
    with meta.record() as calls, attention_recomputed(block, False):
        y, saved = blocks.forward(block, x, wants_grad)
        saved.backward(_gradient(y))
    return _model_flops(calls)


class _Names:
    """What storages are called that a block keeps which made `y` of `x`, as `BlockProfile.saved` has them.

    others: tensors whose storages are left out.
    """

    def __init__(self, x: Arrays, y: Arrays, others: Iterable[Tensor]):
        self.names: dict[int, str | tuple[str, int]] = {}
        for name, arrays in (("output", y), ("input", x)):
            plain = not isinstance(arrays, tuple)
            self.names |= {id(a.storage): name if plain else (name, k) for k, a in enumerate(several(arrays))}
        self.numbers = map(str, count())
        self.others = storages(t.data for t in others)

    def __call__(self, arrays: Iterable[MetaArray]) -> Kept:
        found = {key: nbytes for key, nbytes in storages(arrays).items() if key not in self.others}
        self.names |= zip((key for key in found if key not in self.names), self.numbers, strict=False)
        return tuple((self.names[key], nbytes) for key, nbytes in found.items())


def flops(calls: Sequence[Call]) -> int:
    return sum(c.flops for c in calls if isinstance(c, KernelCall))


def _model_flops(calls: Sequence[Call]) -> int:
    """Without what a kernel computes again."""
    return sum(c.flops - c.recomputed for c in calls if isinstance(c, KernelCall))
